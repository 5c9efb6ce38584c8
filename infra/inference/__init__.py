"""Answers with a base model and what was trained on it: labels, spans, words; and embeds with a frozen base.

    record     AdapterRecord: what lies beside the tensors
    tuned      a folder that training saved, on its base -> a model, a tokenizer, a record
    batches    minibatches in which an answer does not depend on its company
    predictor  a label per text
    tagger     labelled spans of a text
    generator  a decoder's answer to a conversation
    embedding  texts as vectors

Errors: ModelError, when a folder is incomplete, was changed, or belongs to another base.
"""

from infra.inference.embedding import embed
from infra.inference.generator import Generated, Generator
from infra.inference.predictor import Prediction, Predictor
from infra.inference.record import RECORD_FILE, TEMPLATE_FILE, AdapterRecord, Objective
from infra.inference.tagger import Tagger
from infra.inference.tuned import load_tuned
from infra.models.tagging import TaggedSpan

__all__ = [
    "RECORD_FILE",
    "TEMPLATE_FILE",
    "AdapterRecord",
    "Generated",
    "Generator",
    "Objective",
    "Prediction",
    "Predictor",
    "TaggedSpan",
    "Tagger",
    "embed",
    "load_tuned",
]
