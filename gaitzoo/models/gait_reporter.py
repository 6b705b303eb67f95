"""Words about an embedding: soft tokens and facts for a frozen language model (a reconstruction).

Paper: https://arxiv.org/abs/2512.04425. From the abstract: a frozen language model turns visual
embeddings and structured metadata into clinical text. [inferred]: the projector, the prompt, its
training on reports of the user's own, and which language model. A research aid, no diagnostic
device: what such a model writes may be wrong in any word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.models.gaitllm.frozen_llm import FrozenLLM
from gaitzoo.models.gaitllm.llm_loading import load_writer

__all__ = ["GaitReporter"]

_MARK = "<gait>"
_TEMPLATE = """Task: {task}
{facts}
Video: <gait>
Report:"""


class GaitReporter(nn.Module):
    """Text about one walk from its embedding and what else is known, by a frozen language model.

    A small projector makes soft tokens of the embedding, which stand in the prompt where the
    template says ``<gait>``. It alone is trained, on reports of the user's own; the language model
    takes no gradients, stays in eval mode, and is frozen in place, not copied
    (:class:`FrozenLLM`). Before training, or without reports, ``text_only=True`` gives it the facts
    alone.

    A research aid, no diagnostic device: read what it writes as what it is, a guess at words. The
    user owns wording, metadata, labels and every claim. Source: https://arxiv.org/abs/2512.04425,
    abstract; a reconstruction, what is inferred is said at the top of this file.

    Args:
        lm: A causal language model of transformers with the layer that predicts words.
        tokenizer: Its tokenizer: ``tokenizer(text, add_special_tokens=False)["input_ids"]`` and
            ``tokenizer.decode(ids, skip_special_tokens=True)``.
        embed_dim: Numbers of an embedding, all parts together.
        n_tokens: Soft tokens.
        task: The first words of the prompt.
        template: The prompt with ``{task}``, ``{facts}`` and once ``<gait>``.

    Shapes:
        embedding: ``[N, embed_dim]``, or ``[N, P, C]`` of any model of this library.

    Attributes:
        lm: The language model.

    Raises:
        ValueError: If ``lm`` predicts no words, ``template`` or ``task`` has other places, or
            inputs do not fit.

    Example:
        >>> import transformers
        >>> config = transformers.GPT2Config(vocab_size=128, n_embd=16, n_layer=1, n_head=2,
        ...                                  bos_token_id=0, eos_token_id=0)
        >>> class Letters:
        ...     def __call__(self, text, add_special_tokens=False):
        ...         return {"input_ids": [ord(letter) % 128 for letter in text]}
        ...     def decode(self, ids, skip_special_tokens=True):
        ...         return "".join(chr(i) for i in ids)
        >>> reporter = GaitReporter(transformers.GPT2LMHeadModel(config), Letters(), embed_dim=8)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(60, 8))
        >>> embedding = network(torch.rand(1, 5, 12))
        >>> facts = {"age": 71, "view": "side"}
        >>> reporter.loss(embedding, [facts], ["Short steps."]).shape
        torch.Size([])
        >>> print(reporter.prompt(facts, {"Parkinson": 0.8, "healthy": 0.2}))
        Task: Describe the gait for a clinician who checks every word.
        age: 71
        view: side
        predicted class: Parkinson (probability 0.80)
        Video: <gait>
        Report:
    """

    lm: Any
    tokenizer: Any

    def __init__(
        self,
        lm: nn.Module,
        tokenizer: Any,
        embed_dim: int,
        n_tokens: int = 8,
        *,
        task: str = "Describe the gait for a clinician who checks every word.",
        template: str = _TEMPLATE,
    ) -> None:
        super().__init__()
        check_size(embed_dim=embed_dim, n_tokens=n_tokens)
        head = getattr(lm, "get_output_embeddings", lambda: None)()
        if not isinstance(head, nn.Module):
            raise ValueError(
                "expected a language model of transformers that predicts words "
                f"(AutoModelForCausalLM), got {type(lm).__name__}"
            )
        if any(template.count(place) != 1 for place in ("{task}", "{facts}", _MARK)):
            raise ValueError(
                f"expected a template with one {{task}}, {{facts}} and {_MARK}, got {template!r}"
            )
        if _MARK in task:
            raise ValueError(f"expected a task without {_MARK}, got {task!r}")
        lm.requires_grad_(False).eval()
        self.llm, self.word_head = FrozenLLM(lm, bos=False), head
        # Both of its parts are registered; the whole, which generates, shares them.
        object.__setattr__(self, "lm", lm)
        object.__setattr__(self, "tokenizer", tokenizer)
        self.embed_dim, self.n_tokens = embed_dim, n_tokens
        self.task, self.template = task, template
        width = self.llm.hidden_size
        self.norm, self.project = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, width * n_tokens)
        # Soft tokens as long as words are: the model has never seen others.
        self.scale = float(self.llm.embedding_scale)
        self.positions = nn.Parameter(0.02 * torch.randn(n_tokens, width))

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        embed_dim: int,
        n_tokens: int = 8,
        *,
        revision: str | None = None,
        dtype: str | None = None,
        **arguments: Any,
    ) -> Self:
        """A reporter with a language model and tokenizer by name, without code from the Hub.

        Args:
            name: Hub name, or a folder written by transformers.
            embed_dim: As for the class.
            n_tokens: As for the class.
            revision: Branch, tag or commit.
            dtype: As for :class:`FrozenLLM`.
            **arguments: Others of the class.

        Raises:
            OSError: If the name cannot be loaded, completely.
            ValueError: If an argument has none of the values named here.
        """
        lm, tokenizer = load_writer(name, revision, dtype)
        return cls(lm, tokenizer, embed_dim, n_tokens, **arguments)

    def train(self, mode: bool = True) -> Self:
        """Puts the projector into training mode; the language model stays in eval mode."""
        super().train(mode)
        self.word_head.eval()
        return self

    def prompt(
        self,
        metadata: Mapping[str, Any],
        prediction: Mapping[str, float] | None = None,
        frame_attention: Tensor | None = None,
        top_frames: int = 3,
        text_only: bool = False,
    ) -> str:
        """The prompt of one walk, with ``<gait>`` where the soft tokens come.

        Args:
            metadata: Names to values, written as lines in the order of the mapping.
            prediction: Name of each class to its probability.
            frame_attention: ``[T]`` weights of the frames.
            top_frames: Of those, so many are named, the highest first.
            text_only: Without ``<gait>`` and what else its line says.

        Raises:
            ValueError: If a fact holds ``<gait>``, or a probability is none.
        """
        facts = [f"{key}: {value}" for key, value in metadata.items()]
        if prediction:
            best = max(prediction, key=lambda name: prediction[name])
            if not 0 <= prediction[best] <= 1:
                raise ValueError(f"expected probabilities from 0 to 1, got {prediction[best]}")
            facts.append(f"predicted class: {best} (probability {prediction[best]:.2f})")
        if frame_attention is not None:
            count = min(top_frames, frame_attention.numel())
            frames = frame_attention.flatten().topk(count).indices.tolist()
            facts.append(f"frames of highest attention: {', '.join(map(str, frames))}")
        # Not str.format: facts and templates may hold braces.
        text = "\n".join(facts)
        if _MARK in text:
            raise ValueError(f"expected facts without {_MARK}, which marks the soft tokens")
        template = self.template
        if text_only:
            lines = template.splitlines()
            # A line that holds facts too keeps them.
            kept = [x for x in lines if _MARK not in x or "{facts}" in x or "{task}" in x]
            template = "\n".join(kept).replace(_MARK, "")
        before, after = template.split("{facts}")
        return before.replace("{task}", self.task) + text + after.replace("{task}", self.task)

    def soft_tokens(self, embedding: Tensor) -> Tensor:
        """What the language model reads of an embedding: ``[N, n_tokens, hidden_size]``.

        Args:
            embedding: As for the class.

        Raises:
            ValueError: If it has another size.
        """
        if embedding.ndim not in (2, 3) or embedding[0].numel() != self.embed_dim:
            raise ValueError(
                f"expected embeddings [N, {self.embed_dim}] or [N, P, C] of as many numbers, got "
                f"{shape_of(embedding)}"
            )
        x = self.project(self.norm(embedding.flatten(1).to(self.project.weight.dtype)))
        x = x.unflatten(1, (self.n_tokens, -1))
        return F.layer_norm(x, x.shape[2:]) * self.scale + self.positions

    def loss(
        self,
        embedding: Tensor | None,
        metadata: Sequence[Mapping[str, Any]],
        target_text: Sequence[str],
        prediction: Sequence[Mapping[str, float]] | None = None,
        text_only: bool = False,
    ) -> Tensor:
        """Mean cross-entropy of the words of reports, each after its prompt.

        Args:
            embedding: As for the class; ``None`` with ``text_only``.
            metadata: Facts of each walk.
            target_text: Report of each walk.
            prediction: Probabilities of each walk.
            text_only: Leave the soft tokens out (for comparison: nothing is then trained).

        Raises:
            ValueError: If numbers of walks differ, a report is empty, or a text is too long.
        """
        if not metadata or len(metadata) != len(target_text):
            raise ValueError(
                "expected facts and a report of each walk, got "
                f"{len(metadata)} and {len(target_text)}"
            )
        sentences, targets = [], []
        end = getattr(self.lm.config, "eos_token_id", None)
        prefixes = self._prefixes(embedding, metadata, prediction, None, text_only)
        for prefix, text in zip(prefixes, target_text, strict=True):
            words = self._ids(text) + ([end] if isinstance(end, int) else [])
            if not text:
                raise ValueError("expected reports of a word or more, got an empty one")
            ids = torch.tensor(words, device=prefix.device)
            sentences.append(torch.cat([prefix, self._embed(ids)]))
            targets.append(torch.cat([ids.new_full((len(prefix),), -100), ids]))
        longest = max(map(len, sentences))
        self._check_room(longest)
        padded = nn.utils.rnn.pad_sequence(sentences, batch_first=True)
        labels = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        counts = torch.tensor([len(x) for x in sentences], device=padded.device)
        mask = torch.arange(longest, device=padded.device) < counts[:, None]
        logits = self.lm(
            inputs_embeds=padded, attention_mask=mask.long(), use_cache=False
        ).logits.float()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    @torch.no_grad()
    def generate(
        self,
        embedding: Tensor | None,
        metadata: Mapping[str, Any],
        prediction: Mapping[str, float] | None = None,
        *,
        frame_attention: Tensor | None = None,
        text_only: bool = False,
        **generation: Any,
    ) -> str:
        """Writes about one walk.

        Args:
            embedding: As for the class, N = 1; ``None`` with ``text_only``.
            metadata: Facts of the walk.
            prediction: Name of each class to its probability.
            frame_attention: ``[T]`` weights of the frames.
            text_only: Leave the soft tokens out.
            **generation: For ``lm.generate`` of transformers, for example ``max_new_tokens``.

        Raises:
            ValueError: If there is not one embedding, or the prompt is too long.
        """
        attention = None if frame_attention is None else [frame_attention]
        predictions = None if prediction is None else [prediction]
        (prefix,) = self._prefixes(embedding, [metadata], predictions, attention, text_only)
        self._check_room(len(prefix) + 1)
        generation = {"max_new_tokens": 128, "do_sample": False, **generation}
        mask = torch.ones(1, len(prefix), dtype=torch.long, device=prefix.device)
        ids = self.lm.generate(inputs_embeds=prefix[None], attention_mask=mask, **generation)
        return self.tokenizer.decode(ids[0].tolist(), skip_special_tokens=True).strip()

    def _prefixes(
        self,
        embedding: Tensor | None,
        metadata: Sequence[Mapping[str, Any]],
        prediction: Sequence[Mapping[str, float]] | None,
        attention: Sequence[Tensor] | None,
        text_only: bool,
    ) -> list[Tensor]:
        """What stands before the report of each walk, ``[L, hidden_size]``."""
        count = len(metadata)
        soft = None
        if not text_only:
            if embedding is None or len(embedding) != count:
                raise ValueError(
                    f"expected {count} embedding(s), one of each walk, got "
                    f"{'none' if embedding is None else len(embedding)}; text_only=True does "
                    "without"
                )
            soft = self.soft_tokens(embedding)
        if prediction is not None and len(prediction) != count:
            raise ValueError(f"expected {count} prediction(s), got {len(prediction)}")
        found = []
        for i, facts in enumerate(metadata):
            text = self.prompt(
                facts,
                None if prediction is None else prediction[i],
                None if attention is None else attention[i],
                text_only=text_only,
            )
            device = self.project.weight.device
            parts = [torch.tensor(self._ids(x), device=device) for x in text.split(_MARK)]
            words = [self._embed(part.long()) for part in parts]
            if soft is not None:
                words.insert(1, soft[i].to(words[0].dtype))
            found.append(torch.cat(words))
        return found

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _embed(self, ids: Tensor) -> Tensor:
        return self.llm.model.get_input_embeddings()(ids)

    def _check_room(self, length: int) -> None:
        room = self.llm.max_tokens
        if room is not None and length > room:
            raise ValueError(
                f"expected at most {room} tokens, which the language model reads, got {length}; "
                "shorten facts or reports"
            )
