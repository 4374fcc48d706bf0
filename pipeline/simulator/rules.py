"""Which fault, if any, strikes a request.

In: a checked request. Out: a rule, or None. Words in double brackets in a prompt come first (`[[refuse]]`,
`[[overloaded:2]]` for its first two askings), then an outage of the present capacity, then the profile's rules in
their order; the first that strikes is the only one. Chances depend on the seed, the request and how often it was asked,
not on the order of arrival.
"""

import re
from collections import Counter

from pipeline.simulator.asks import Ask
from pipeline.simulator.dice import Dice
from pipeline.simulator.faults import ALIASES, FAULTS
from pipeline.simulator.profile import Profile, Rule, Step

_WORD = re.compile(r"\[\[\s*([a-z0-9_]+)\s*(?::\s*([0-9]{1,6}))?\s*\]\]")
_FORGET_AT = 200_000  # requests whose repeats are remembered; a longer run starts counting anew


def without_words(prompt: str) -> str:
    """Return a prompt without its bracketed fault words, as it should be drawn."""
    return _WORD.sub("", prompt).strip()


class Rules:
    """Counts what was asked, and decides."""

    def __init__(self, profile: Profile) -> None:
        self._rules = profile.faults
        self._dice = Dice(profile.seed, "rules")
        self._askings: Counter[str] = Counter()
        self._matches: Counter[int] = Counter()

    def asking(self, ask: Ask) -> int:
        """Count one request and return how often it has been asked now, from 1."""
        if len(self._askings) > _FORGET_AT:
            self._askings.clear()
        self._askings[ask.digest] += 1
        return self._askings[ask.digest]

    def strike(self, ask: Ask, asking: int, step: Step) -> Rule | None:
        """Return the rule that strikes the `asking`-th time this request is made."""
        named = _named(ask.prompt, asking)
        if named is not None:
            return Rule(name=named)
        if step.outage is not None:
            return Rule(name=step.outage)
        struck = [rule for place, rule in enumerate(self._rules) if self._strikes(place, rule, ask, asking)]
        return struck[0] if struck else None  # every rule counts, also when an earlier one struck

    def _strikes(self, place: int, rule: Rule, ask: Ask, asking: int) -> bool:
        if not rule.match.fits(ask):
            return False
        self._matches[place] += 1
        if rule.probability is not None:
            return self._dice.fraction(place, ask.digest, asking) < rule.probability
        count = asking if rule.per == "request" else self._matches[place]
        if rule.every is not None:
            return count % rule.every == 0
        if rule.first is not None:
            return count <= rule.first
        return rule.at is None or count in rule.at


def _named(prompt: str, asking: int) -> str | None:
    for found in _WORD.finditer(prompt):
        name = ALIASES.get(found[1], found[1])
        if name in FAULTS and (found[2] is None or asking <= int(found[2])):
            return name
    return None
