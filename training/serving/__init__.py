"""What an alias stands on, answering over HTTP as OpenAI's chat completions do; its traffic becomes traces.

    alias -> Follower -> Served --+
    HTTP -> requests -> Question -> Desk -> Answer -> response
                                      +-> TrafficLog -> <lake>/traffic/*.jsonl -> stemma ingest

    requests   what may be asked, within which limits
    exchange   question and answer in OpenAI's shape: the response, the stream, the line of the log
    served     a registered model, loaded and ready: labels, spans, words
    engines    the same in a server of vLLM's or transformers', where one is asked for
    desk       one model at a time, many questions: a bounded queue, whole batches, a swap in between
    following  where the alias stands now, and how the desk gets there
    traffic    lines that a crash cannot spoil
    app        the endpoints; imported by `stemma serve` alone, for it needs the extra `serve`

Errors: ServingError, a TrainingError; Refused is what a client did wrong, with its HTTP status.
"""

from training.serving.desk import Desk
from training.serving.following import Follower
from training.serving.requests import Limits, Question, Refused, ServingError
from training.serving.served import Answer, Served, load_served
from training.serving.traffic import TrafficLog

__all__ = [
    "Answer",
    "Desk",
    "Follower",
    "Limits",
    "Question",
    "Refused",
    "Served",
    "ServingError",
    "TrafficLog",
    "load_served",
]
