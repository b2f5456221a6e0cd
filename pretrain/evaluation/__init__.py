"""evaluation: how well captions find their videos, and videos their captions.

scores -> ranks           the rank of what is right for each query: ties, NaN and multi-caption protocols
results                   the figures of ranks, as values, as JSON and as rows of a table
uncertainty               bootstrap intervals of the figures, and a paired test between two runs
transductive              dual softmax and QB-norm: other scores, reported in rows of their own
evaluator                 a model on any set of clips, shared by all ranks (shares); held_out: on one of clip shards
two_stage/                coarse to fine
"""

from stillreel.pretrain.evaluation.evaluator import EvalBatch, EvalProtocol, EvaluationResult, Evaluator
from stillreel.pretrain.evaluation.held_out import held_out_evaluator
from stillreel.pretrain.evaluation.ranks import Matches, Ranks, pairs, rank_classes, text_to_video, video_to_text
from stillreel.pretrain.evaluation.results import (
    Choice,
    Recognition,
    Retrieval,
    evaluate_choice,
    evaluate_recognition,
    evaluate_retrieval,
    in_rows,
)
from stillreel.pretrain.evaluation.transductive import (
    dual_softmax,
    evaluate_dual_softmax,
    evaluate_querybank,
    querybank_norm,
)
from stillreel.pretrain.evaluation.uncertainty import Difference, Interval, compare, intervals

__all__ = [
    "Choice",
    "Difference",
    "EvalBatch",
    "EvalProtocol",
    "EvaluationResult",
    "Evaluator",
    "Interval",
    "Matches",
    "Ranks",
    "Recognition",
    "Retrieval",
    "compare",
    "dual_softmax",
    "evaluate_choice",
    "evaluate_dual_softmax",
    "evaluate_querybank",
    "evaluate_recognition",
    "evaluate_retrieval",
    "held_out_evaluator",
    "in_rows",
    "intervals",
    "pairs",
    "querybank_norm",
    "rank_classes",
    "text_to_video",
    "video_to_text",
]
