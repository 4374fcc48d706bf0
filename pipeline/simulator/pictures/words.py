"""What a prompt talks about: colours, things, places, light, weather, style and the words of a title.

In: the prompt. Out: an `Idea`. Plain look-up of words and their plurals; what is not known is left out. It refuses to
know how anything is drawn.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

from pipeline.simulator.pictures.colours import NAMED, Rgb

THINGS: Mapping[str, str] = {
    word: thing
    for thing, words in {
        "mug": "mug coffee cocoa latte espresso cappuccino",
        "cup": "cup teacup tea",
        "teapot": "teapot kettle",
        "bottle": "bottle flask thermos wine perfume",
        "glass": "glass tumbler juice lemonade cocktail",
        "vase": "vase jug pitcher carafe amphora urn",
        "bowl": "bowl soup ramen dish salad",
        "apple": "apple",
        "orange": "oranges tangerine clementine mandarin",
        "lemon": "lemons citrus",
        "pear": "pear",
        "cake": "cake cupcake muffin dessert",
        "candle": "candle",
        "lamp": "lamp lantern lampshade",
        "chair": "chair armchair stool",
        "book": "book notebook journal diary",
        "plant": "plant houseplant monstera succulent cactus fern pot",
        "flower": "flower tulip bouquet daisy sunflower bloom peony",
        "box": "box package parcel gift present carton",
        "bag": "bag tote backpack handbag satchel",
        "clock": "clock watch alarm",
        "camera": "camera",
        "headphones": "headphones headphone headset",
        "shoe": "shoe sneaker trainer boot",
        "ball": "ball sphere marble globe",
        "cat": "cat kitten kitty tabby",
        "dog": "dog puppy hound",
        "bird": "bird sparrow robin songbird parrot",
        "owl": "owl",
        "fish": "fish goldfish koi",
        "robot": "robot android",
        "car": "car taxi automobile van",
        "bicycle": "bicycle bike",
        "rocket": "rocket spaceship",
    }.items()
    for word in words.split()
}

PLACES: Mapping[str, str] = {
    word: place
    for place, words in {
        "mountain": "mountain alps alpine peak himalaya summit volcano matterhorn fuji glacier",
        "hill": "hill countryside valley tuscany vineyard",
        "sea": "sea ocean coast beach harbour harbor bay shore island seaside port marina",
        "lake": "lake fjord river loch pond canal waterfront",
        "forest": "forest wood woods woodland tree pine jungle park grove",
        "city": "city skyline downtown skyscraper street metropolis urban rooftop",
        "town": "town village house cottage houses rooftops",
        "desert": "desert dune sahara pyramid oasis",
        "meadow": "meadow field prairie pasture garden",
        "space": "space galaxy planet cosmos nebula universe saturn orbit",
    }.items()
    for word in words.split()
}

AFAR: Mapping[str, str] = {
    word: thing
    for thing, words in {
        "boat": "boat sailboat ship yacht sail sailing",
        "balloon": "balloon balloons",
        "lighthouse": "lighthouse",
        "tower": "eiffel tower",
        "bridge": "bridge",
        "pyramid": "pyramid pyramids",
        "pagoda": "pagoda temple shrine",
        "windmill": "windmill windmills",
        "cabin": "cabin hut chalet",
        "gull": "gull gulls seagull birds swallows",
    }.items()
    for word in words.split()
}

CITIES: Mapping[str, str] = {
    "lisbon": "town sea", "porto": "town lake bridge", "oslo": "mountain lake cabin", "bergen": "mountain lake",
    "paris": "city tower", "london": "city lake bridge", "rome": "town hill", "venice": "town sea boat",
    "amsterdam": "town lake windmill", "berlin": "city", "vienna": "city hill", "prague": "town lake bridge",
    "zurich": "mountain lake", "geneva": "mountain lake boat", "barcelona": "town sea", "madrid": "city",
    "athens": "town sea", "santorini": "town sea", "istanbul": "town sea boat", "marrakesh": "town desert",
    "cairo": "desert pyramid", "dubai": "city desert", "tokyo": "city mountain", "kyoto": "mountain pagoda",
    "seoul": "city mountain", "beijing": "city pagoda", "shanghai": "city lake", "singapore": "city sea",
    "sydney": "city sea boat", "reykjavik": "mountain sea", "stockholm": "town lake boat", "copenhagen": "town sea",
    "helsinki": "town sea", "dublin": "town hill", "edinburgh": "town hill", "naples": "mountain sea",
    "york": "city sea", "francisco": "city sea bridge", "chicago": "city lake", "seattle": "city mountain lake",
    "rio": "mountain sea", "lima": "mountain town", "havana": "town sea", "honolulu": "sea mountain",
    "cornwall": "sea hill lighthouse", "provence": "meadow hill", "scotland": "mountain lake",
    "norway": "mountain lake", "iceland": "mountain sea",
    "japan": "mountain pagoda", "greece": "town sea", "italy": "hill town",
    "switzerland": "mountain lake cabin", "patagonia": "mountain lake", "morocco": "desert town",
    "egypt": "desert pyramid",
}  # fmt: skip

LIGHTS: Mapping[str, str] = {
    word: light
    for light, words in {
        "dawn": "dawn sunrise morning daybreak",
        "dusk": "dusk twilight evening bluehour",
        "sunset": "sunset golden-hour goldenhour sundown",
        "night": "night midnight moon moonlight moonlit starry stars",
        "storm": "storm stormy thunder tempest rain rainy",
        "fog": "fog foggy mist misty haze",
        "day": "day noon midday sunny bright daylight",
        "aurora": "aurora northern-lights",
    }.items()
    for word in words.split()
}

SEASONS: Mapping[str, str] = {
    word: season
    for season, words in {
        "autumn": "autumn autumnal fall october november september",
        "winter": "winter snow snowy frost frosty december january christmas",
        "spring": "spring blossom cherry april",
        "summer": "summer july august",
    }.items()
    for word in words.split()
}

ROOMS: Mapping[str, str] = {
    word: room
    for room, words in {
        "studio": "studio seamless backdrop product catalogue catalog packshot",
        "cafe": "café cafe bistro bar restaurant kitchen",
        "table": "table desk wooden shelf counter linen",
        "window": "window windowsill sill room interior",
        "outdoors": "outdoors picnic terrace balcony",
    }.items()
    for word in words.split()
}

STYLES: Mapping[str, str] = {
    word: style
    for style, words in {
        "poster": "poster placard postcard cover flyer",
        "abstract": "abstract geometric pattern wallpaper gradient texture shapes",
    }.items()
    for word in words.split()
}

_SKIPPED: Set[str] = frozenset(
    re.findall(
        r"[a-z]+",
        """
    a an the of in on at with and or for to from by over under near into its his her their this that as is are very
    travel poster vintage style minimal minimalist retro photo photograph picture image illustration drawing painting
    render shot studio beautiful please make create draw paint
""",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """What was understood. Tuples are in the order of the prompt, without repeats."""

    colours: tuple[Rgb, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    afar: tuple[str, ...]
    light: str | None
    season: str | None
    room: str | None
    style: str | None
    title: str
    subtitle: str


def understand(prompt: str) -> Idea:
    """Read a prompt."""
    words = words_of(prompt)
    cities = [feature for word in words for feature in CITIES.get(word, "").split()]
    places = [*_found(words, PLACES), *(feature for feature in cities if feature not in AFAR.values())]
    afar = [*_found(words, AFAR), *(feature for feature in cities if feature in AFAR.values())]
    title, subtitle = _titles(prompt)
    return Idea(
        colours=tuple(dict.fromkeys(NAMED[word] for word in words if word in NAMED)),
        things=_found(words, THINGS),
        places=tuple(dict.fromkeys(places)),
        afar=tuple(dict.fromkeys(afar)),
        light=_first(words, LIGHTS),
        season=_first(words, SEASONS),
        room=_first(words, ROOMS),
        style=_first(words, STYLES),
        title=title,
        subtitle=subtitle,
    )


def words_of(prompt: str) -> list[str]:
    """Return the words of a prompt in lower case."""
    return re.findall(r"[\w'-]+", prompt.casefold())


def _found(words: list[str], known: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for word in words if (name := _look(word, known)) is not None))


def _first(words: list[str], known: Mapping[str, str]) -> str | None:
    return next(iter(_found(words, known)), None)


def _look(word: str, known: Mapping[str, str]) -> str | None:
    for form in (word, word.removesuffix("'s"), word.removesuffix("s"), word.removesuffix("es")):
        if form in known:
            return known[form]
    return None


def _titles(prompt: str) -> tuple[str, str]:
    """Return title and subtitle: quoted words, else the first names (capitals inside a sentence), else key words."""
    quoted = re.search(r"[\"“”']([^\"“”']{2,32})[\"“”']", prompt)
    if quoted is not None:
        return quoted[1].strip(), ""
    names = re.findall(r"(?<![.!?]\s)(?<!^)\b[A-ZÀ-Þ][\w’'-]+(?:\s+[A-ZÀ-Þ][\w’'-]+)*", prompt)
    words = [
        word
        for word in re.findall(r"[^\W\d_]{3,}", prompt)
        if word.casefold() not in _SKIPPED and word.casefold() not in NAMED
    ]
    rest = [word for word in words if not names or word not in names[0]]
    if names:
        return names[0], " ".join(rest[:2])
    return " ".join(words[:2]), " ".join(words[2:4])
