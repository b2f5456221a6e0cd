"""What transformers makes of exported towers, and the reverse; its tokenizers and text towers, on local stand-ins.

transformers is no dependency: without it these are skipped, and test_round_trips.py has its models as they are stated there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillreel.configs.exchange import ExportSettings, ImportSettings
from stillreel.configs.model import ModelSettings
from stillreel.finetune.commands import export, import_checkpoint
from stillreel.pretrain.data.tokens import CLIPS_OWN, count_cut, tokenizer_of
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.adapter import image_size
from stillreel.pretrain.model.towers import build_towers
from tests import towers
from tests.pretrain.hub_layout import HubModel
from tests.pretrain.test_round_trips import CLOSE, apart, features, write_ours

transformers = pytest.importorskip("transformers", reason="66 MB that nothing else here needs")
WORDS = "a dog runs in the park cat sleeps"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ViT-B-32-quickgelu", "CLIPModel"),
        ("ViT-B-16-SigLIP", "SiglipModel"),
        ("ViT-B-32-SigLIP2-256", "SiglipModel"),
    ],
)
def test_towers_go_to_transformers_and_come_back(name: str, kind: str, tmp_path: Path) -> None:
    """In float64, on both sides: what is compared is the weights' map (see test_round_trips)."""
    ours = write_ours(name, tmp_path / "ours")
    frames, ids = torch.randn(2, 3, *image_size(ours.clip)), towers.captions_for(ours.clip)
    image, text = features(ours, frames, ids)
    with torch.no_grad(), towers.shallow_timm():
        export.run(str(tmp_path / "ours"), str(tmp_path / "hf"), ExportSettings.resolve({"towers": "hf"}))
        theirs = getattr(transformers, kind).from_pretrained(tmp_path / "hf" / "towers")
        theirs.save_pretrained(tmp_path / "theirs")
        theirs.double().eval()
        found = [
            vectors if isinstance(vectors, torch.Tensor) else vectors.pooler_output
            for vectors in (
                theirs.get_image_features(pixel_values=frames.double()),
                theirs.get_text_features(input_ids=ids),
            )
        ]
        assert apart(image, found[0]) < CLOSE and apart(text, found[1]) < CLOSE
        stated = HubModel(tmp_path / "hf" / "towers")
        assert apart(stated.image_features(frames), found[0]) < CLOSE
        assert apart(stated.text_features(ids), found[1]) < CLOSE
        import_checkpoint.run(str(tmp_path / "theirs"), str(tmp_path / "back"), ImportSettings())
        back = features(load_model(tmp_path / "back").double(), frames, ids)
        assert apart(back[0], image) < CLOSE and apart(back[1], text) < CLOSE


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
    said = ["a dog runs", "the cat sleeps in the park a dog runs", "a dog runs in a"]
    # By CLIP's own, with a start, the last is longer, too.
    assert (count_cut(said, 6, tokenizer_of(cfg)), count_cut(said, 6, CLIPS_OWN)) == (1, 2)
    ids = tokenizer_of(cfg)(said[:2], 6)
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
