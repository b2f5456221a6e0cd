"""The field's words for a setting are answered with the setting that is meant, and with none that is not."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import pytest
import yaml

from stillreel.cli import settings_model
from stillreel.commands import COMMANDS
from stillreel.configs.answers import answer, knows
from stillreel.configs.terms import synonyms

# (whose flag, the flag, the command, what the answer must name, all of it)
TERMS = [
    ("open_clip", "lr", "pretrain", "optimizer.lr optimizer.lr_new"),
    ("open_clip", "wd", "pretrain", "optimizer.weight_decay"),
    ("open_clip", "beta1", "pretrain", "optimizer.betas"),
    ("open_clip", "warmup", "pretrain", "optimizer.warmup_steps optimizer.warmup_ratio"),
    ("open_clip", "lr_scheduler", "pretrain", "optimizer.warmup_steps optimizer.warmup_ratio optimizer.min_lr_ratio"),
    ("open_clip", "lr_cooldown_end", "pretrain", "optimizer.min_lr_ratio"),
    ("open_clip", "batch_size", "pretrain", "batch"),
    ("open_clip", "accum_freq", "pretrain", "micro_batch"),
    ("open_clip", "grad_checkpointing", "pretrain", "activation_checkpointing"),
    ("open_clip", "torchcompile", "finetune", "compile"),
    ("open_clip", "fsdp", "pretrain", "parallel=fsdp"),
    ("open_clip", "siglip", "pretrain", "objective.sigmoid"),
    ("open_clip", "lock_image", "pretrain", "optimizer.lr=0 optimizer.layer_decay"),
    ("open_clip", "visual_layer_decay", "pretrain", "optimizer.layer_decay"),
    ("open_clip", "force_patch_dropout", "pretrain", "objective.patch_dropout"),
    ("open_clip", "force_context_length", "finetune", "context_length"),
    ("open_clip", "force_image_size", "pretrain", "size"),
    ("open_clip", "val_data", "pretrain", "eval.data"),
    ("open_clip", "train_data", "pretrain", "data"),
    ("open_clip", "save_frequency", "pretrain", "save_every"),
    ("open_clip", "val_frequency", "pretrain", "eval.every"),
    ("open_clip", "dist_backend", "pretrain", ""),
    ("lingua", "optim.lr", "pretrain", "optimizer.lr optimizer.lr_new"),
    ("lingua", "optim.clip", "pretrain", "optimizer.grad_clip_norm"),
    ("lingua", "optim.lr_min_ratio", "pretrain", "optimizer.min_lr_ratio"),
    ("lingua", "optim.epsilon", "pretrain", "optimizer.eps model.eps"),
    ("lingua", "data.seq_len", "pretrain", "context_length"),
    ("lingua", "grad_acc_steps", "pretrain", "micro_batch"),
    ("lingua", "distributed.model_dtype", "pretrain", "precision"),
    ("lingua", "distributed.fsdp_type", "pretrain", "parallel=fsdp"),
    ("lingua", "checkpoint.dump.every", "pretrain", "save_every"),
    ("lingua", "checkpoint.dump.keep", "pretrain", "keep_last keep_every"),
    ("lingua", "checkpoint.init_ckpt_path", "finetune", "init resume model.towers.pretrained"),
    ("lingua", "logging.freq", "pretrain", "log_every"),
    ("lingua", "dump_dir", "pretrain", "out"),
    ("torchtitan", "training.local_batch_size", "pretrain", "batch"),
    ("torchtitan", "training.global_batch_size", "finetune", "batch"),
    ("torchtitan", "training.max_norm", "pretrain", "optimizer.grad_clip_norm"),
    ("torchtitan", "training.mixed_precision_param", "pretrain", "precision"),
    ("torchtitan", "training.steps", "pretrain", "steps epochs"),
    ("torchtitan", "lr_scheduler.warmup_steps", "pretrain", "optimizer.warmup_steps optimizer.warmup_ratio"),
    ("torchtitan", "optimizer.name", "pretrain", "optimizer.lr optimizer.weight_decay"),
    ("torchtitan", "parallelism.data_parallel_shard_degree", "pretrain", "parallel=fsdp"),
    ("torchtitan", "checkpoint.interval", "pretrain", "save_every"),
    ("torchtitan", "checkpoint.keep_latest_k", "pretrain", "keep_last keep_every"),
    ("torchtitan", "activation_checkpoint.mode", "pretrain", "activation_checkpointing"),
    ("torchtitan", "validation.freq", "pretrain", "eval.every"),
    ("nanochat", "max_seq_len", "pretrain", "context_length"),
    ("nanochat", "device_batch_size", "pretrain", "batch"),
    ("nanochat", "total_batch_size", "pretrain", "batch"),
    ("nanochat", "num_iterations", "pretrain", "steps epochs"),
    ("nanochat", "final_lr_frac", "pretrain", "optimizer.min_lr_ratio"),
    ("nanochat", "eval_every", "pretrain", "eval.every"),
    ("nanochat", "device_type", "finetune", "device"),
    ("lerobot", "num_workers", "pretrain", "workers"),
    ("lerobot", "output_dir", "finetune", "out"),
    ("lerobot", "save_freq", "finetune", "save_every"),
    ("lerobot", "log_freq", "finetune", "log_every"),
    ("lerobot", "optimizer.grad_clip_norm", "evaluate", ""),
    ("lerobot", "scheduler.num_warmup_steps", "pretrain", "optimizer.warmup_steps optimizer.warmup_ratio"),
    ("lerobot", "dataset.repo_id", "pretrain", "data"),
    ("CLIP4Clip", "coef_lr", "finetune", "optimizer.lr optimizer.lr_new"),
    ("CLIP4Clip", "warmup_proportion", "finetune", "optimizer.warmup_ratio"),
    ("CLIP4Clip", "gradient_accumulation_steps", "finetune", "micro_batch"),
    ("CLIP4Clip", "max_words", "finetune", "context_length"),
    ("CLIP4Clip", "max_frames", "finetune", "frames"),
    ("CLIP4Clip", "feature_framerate", "evaluate", "video.per_second video.every"),
    ("CLIP4Clip", "slice_framepos", "finetune", "video.slice"),
    ("CLIP4Clip", "eval_frame_order", "evaluate", "video.order"),
    ("CLIP4Clip", "sim_header", "finetune", "model.temporal model.head"),
    ("CLIP4Clip", "linear_patch", "finetune", "model.patches"),
    ("CLIP4Clip", "num_thread_reader", "evaluate", "workers"),
    ("CLIP4Clip", "datatype", "finetune", "BENCHMARK data"),
    ("CLIP4Clip", "n_display", "finetune", "log_every"),
    ("CLIP4Clip", "freeze_layer_num", "finetune", "optimizer.lr=0 optimizer.layer_decay"),
    ("CLIP4Clip", "pretrained_clip_name", "finetune", "model model.towers.name"),
    ("CLIP4Clip", "init_model", "finetune", "init resume model.towers.pretrained"),
    ("CLIP4Clip", "local_rank", "finetune", ""),
    ("CLIP4Clip", "fp16", "finetune", "precision"),
]  # fmt: skip


def said(term: str, command: str) -> str:
    return answer(term, settings_model(COMMANDS[command].settings), COMMANDS[command].positionals)


def named(sentence: str) -> list[str]:
    """The settings that an answer offers: those before their glosses, or within its quotes after the question."""
    if "; did you mean " in sentence:
        return re.findall(r"'([^']*)'", sentence.partition("; did you mean ")[2])
    _, offers, listed = sentence.partition(": here it is ")
    while "(" in listed:  # glosses, the innermost first
        listed = re.sub(r" ?\([^()]*\)", "", listed)
    return re.split(r", | and ", listed) if offers else []


@pytest.mark.parametrize(("_codebase", "term", "command", "expected"), TERMS)
def test_a_term_of_the_field_is_answered_by_the_right_setting_and_by_no_other(
    _codebase: str, term: str, command: str, expected: str
) -> None:
    assert named(said(term, command)) == expected.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_answer_names_what_the_command_does_not_have(command: str) -> None:
    model = settings_model(COMMANDS[command].settings)
    positionals = {name.strip("[. ]") for name in COMMANDS[command].positionals}
    for term in synonyms():
        for name in named(said(term, command)):
            path = name.partition("=")[0]
            assert path in positionals or path == "preset" or knows(model, path), (term, name)


def test_a_term_is_listed_once_and_every_setting_that_it_names_is_some_command_s() -> None:
    files = sorted(resources.files("stillreel.configs").joinpath("synonyms").iterdir(), key=str)
    entries = [entry for file in files for entry in yaml.safe_load(file.read_text(encoding="utf-8"))]
    listed = [one.replace("_", "") for entry in entries for one in entry["terms"].split()]
    assert set(listed) == set(synonyms())
    assert [term for term, count in Counter(listed).items() if count > 1] == []
    models = [settings_model(command.settings) for command in COMMANDS.values()]
    positionals = {name.strip("[. ]") for command in COMMANDS.values() for name in command.positionals}
    for term, synonym in synonyms().items():
        for told in synonym.settings:
            path = told.partition("=")[0]
            assert path in positionals or path == "preset" or any(knows(model, path) for model in models), (term, path)


@pytest.mark.parametrize(
    ("term", "command", "answered"),
    [
        ("beam_size", "search", "no text is generated here"),
        ("label_smoothing", "pretrain", "there is no label smoothing"),
        ("gpus", "pretrain", "torchrun --nproc-per-node"),
        ("learning_rate", "evaluate", "this command trains nothing; pretrain and finetune do"),
        ("optimizer.lr", "animate", "this command trains nothing"),
        ("gpus", "stream", "here it is ranks"),
        ("dry_run", "pretrain", "--print-config"),
        ("json_output", "search", "here it is json"),
        ("curriculum.5.frame", "pretrain", "as curriculum.5000.frames=16"),
    ],
)
def test_what_a_command_lacks_is_said_and_why(term: str, command: str, answered: str) -> None:
    assert answered in said(term, command)


@pytest.mark.parametrize(
    ("typed", "command", "meant"),
    [
        ("context_lenght", "pretrain", ["context_length"]),
        ("frmaes", "animate", ["frames"]),
        ("optimizer.weigth_decay", "finetune", ["optimizer.weight_decay"]),
        ("weight_dcay", "finetune", ["optimizer.weight_decay"]),
        ("warmpu", "pretrain", ["optimizer.warmup_steps", "optimizer.warmup_ratio"]),
        ("towers.name", "evaluate", ["model.towers.name"]),
        ("training.micro_batch", "pretrain", ["micro_batch"]),
        # What is near nothing is answered with nothing.
        ("gamma", "animate", []),
        ("logging.every", "pretrain", []),
        ("foobar", "pretrain", []),
    ],
)
def test_spelling_answers_only_when_it_is_near(typed: str, command: str, meant: list[str]) -> None:
    answered = said(typed, command)
    assert named(answered) == meant
    assert meant or "--help all" in answered


def test_a_negated_flag_is_answered_with_the_value() -> None:
    assert said("no_dual_softmax", "evaluate") == "unknown setting 'no_dual_softmax': write dual_softmax=false"
