"""The API, rehearsed: a real HTTP server on this machine that answers, refuses, bills and breaks like the paid one.

profile, profile_file   what a rehearsal is like        faults, rules     what goes wrong, and when
doors, limits           who may come in, how often      waits             how long an answer takes
tree, contents, checks  a body -> an `Ask`, or its 400  studio, pictures  an `Ask` -> pictures
envelopes, refusals     errors as they really look      answers, dressing pictures -> a body
api                     one request, door to bill       wire              a body -> bytes, whole or not
bill                    a line for every answer         simulator         started, addressed, stopped
"""

from pipeline.simulator.profile import Profile
from pipeline.simulator.profile_file import built_in, load_profile
from pipeline.simulator.simulator import Simulator, serve

__all__ = ["Profile", "Simulator", "built_in", "load_profile", "serve"]
