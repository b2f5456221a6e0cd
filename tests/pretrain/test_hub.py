"""What transformers makes of exported towers, and the reverse; its tokenizers and text towers, on local stand-ins.

transformers is no dependency: without it these are skipped.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from stillreel.configs.exchange import ExportSettings, ImportSettings
from stillreel.configs.model import ModelSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.commands import export, import_checkpoint
from stillreel.pretrain.data.tokens import tokenizer_of
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.adapter import image_size, preprocess_named
from stillreel.pretrain.model.checkpoint import save_model
from stillreel.pretrain.model.towers import build_towers
from tests import towers

transformers = pytest.importorskip("transformers")
WORDS = "a dog runs in the park cat sleeps"


def apart(ours: torch.Tensor, theirs: object) -> float:
    found = theirs if isinstance(theirs, torch.Tensor) else theirs.pooler_output  # type: ignore[attr-defined]
    return float((ours - found).abs().max() / found.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ViT-B-32-quickgelu", "CLIPModel"),
        ("ViT-B-16-SigLIP", "SiglipModel"),
        ("ViT-B-32-SigLIP2-256", "SiglipModel"),
    ],
)
def test_towers_go_to_transformers_and_open_clip_and_back(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.no_grad(), towers.shallow_timm():
        clip = build_towers(towers.small_cfg(name), preprocess_named(name))
        for weight in clip.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        model = VideoTextModel(clip, ModelSettings()).eval()
        save_model(model, Folder(str(tmp_path / "ours")), {})
        frames, ids = torch.randn(1, 2, 3, *image_size(clip)), towers.captions_for(clip)
        image, text = model.encode_video(frames).frames[0], model.encode_text(ids).pooled
        export.run(str(tmp_path / "ours"), str(tmp_path / "hf"), ExportSettings.resolve({"towers": "hf"}))
        theirs = getattr(transformers, kind).from_pretrained(tmp_path / "hf" / "towers").eval()
        assert apart(image, theirs.get_image_features(pixel_values=frames[0])) < 2e-6
        assert apart(text, theirs.get_text_features(input_ids=ids)) < 2e-6
        theirs.save_pretrained(tmp_path / "theirs")
        import_checkpoint.run(str(tmp_path / "theirs"), str(tmp_path / "back"), ImportSettings())
        back = load_model(tmp_path / "back")
        assert torch.equal(back.encode_video(frames).frames[0], image) and torch.equal(
            back.encode_text(ids).pooled, text
        )
        export.run(str(tmp_path / "ours"), str(tmp_path / "open_clip"), ExportSettings())
        loaded = open_clip.create_model(f"local-dir:{tmp_path / 'open_clip' / 'towers'}").eval()
        assert apart(loaded.encode_image(frames[0]), image) < 2e-6 and apart(loaded.encode_text(ids), text) < 2e-6


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """A small one of words, as SigLIP's end and pad."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS.split()])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_a_hubs_tokenizer_cuts_as_asked_and_pads_to_what_the_tower_reads(tokenizer: str) -> None:
    cfg = towers.small_cfg("ViT-B-32-SigLIP2-256")
    cfg["text_cfg"]["hf_tokenizer_name"] = tokenizer
    ids = tokenizer_of(cfg)(["a dog runs", "the cat sleeps in the park a dog runs"], 6)
    assert ids.shape == (2, 64)
    assert ids[:, :7].tolist() == [[3, 4, 5, 1, 0, 0, 0], [7, 9, 10, 6, 7, 1, 0]]
    with towers.shallow_timm(), torch.no_grad():
        model = VideoTextModel(build_towers(cfg), ModelSettings()).eval()
        assert model.encode_text(ids).mask.sum(dim=1).tolist() == [4, 6]


@pytest.mark.parametrize("name", ["roberta-ViT-B-32", "mt5-base-ViT-B-32"])
def test_a_hubs_text_tower_is_one_where_its_configuration_is_here(name: str, tmp_path: Path) -> None:
    if "mt5" in name:
        told = transformers.MT5Config(vocab_size=600, d_model=64, d_kv=32, num_layers=2, num_heads=2, d_ff=64)
    else:
        told = transformers.RobertaConfig(
            vocab_size=600, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
        )
    told.save_pretrained(tmp_path)
    assert towers.compare(name, hf_model_name=str(tmp_path), hf_model_pretrained=False) <= towers.CLOSE
