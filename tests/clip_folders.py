"""Folders of tiny CLIP and SigLIP models with random weights, as transformers and open_clip save them."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["[PAD]", "[UNK]", "[EOS]", "a", "photo", "of", "the", "cat", "dog", "bird", "."]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = SMALL | {"image_size": 32, "patch_size": 8}
TEXT = SMALL | {
    "vocab_size": len(WORDS), "max_position_embeddings": 10, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def tiny_tokenizer() -> Any:
    """Return a tokenizer of a few words, which ends a text with [EOS]."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]")


def tiny_model(kind: str) -> Any:
    """Return a model of transformers by the front of its class's name, such as "CLIP" or "Siglip"."""
    import transformers

    torch.manual_seed(0)
    text = TEXT | ({"projection_size": 16} if kind == "Siglip" else {})
    sides = {"vision_config": VISION, "text_config": text} | ({} if kind == "Siglip" else {"projection_dim": 12})
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def save_clip(folder: Path, kind: str) -> Any:
    """Save a model of transformers with its tokenizer and preprocessor, and return it."""
    model = tiny_model(kind)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    read = {"size": {"shortest_edge": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(read))
    return model


def save_open_clip(folder: Path) -> Any:
    """Save a model of open_clip, and return it."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    sides = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    seen = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sides, "preprocess_cfg": seen}))
    model = open_clip.CLIP(**sides).eval()
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model
