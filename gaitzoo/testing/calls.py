"""What a model promises of its calls: in batches of any lengths, and in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.batches import by_name
from gaitzoo.data.modalities import find_modality
from gaitzoo.hub.structure import has_place_for_classes
from gaitzoo.inference.inputs import each_tensor
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.testing.memory import fill_freed_memory
from gaitzoo.testing.trial import Skipped, Trial, hold, hold_equal, largest_difference

__all__ = [
    "autocast",
    "bad_inputs",
    "checkpointing",
    "classes",
    "equal_lengths",
    "features",
    "gradients",
    "grey_levels",
    "length_law",
    "length_law_float64",
    "order",
    "shapes",
]

_GARBAGE = (3.0, float("nan"), float("-inf"))


@torch.no_grad()
def length_law(trial: Trial) -> None:
    """A sequence in a padded batch gives what it gives alone, whatever the padding holds."""
    for garbage in _GARBAGE:
        fill_freed_memory(trial.device)
        trial.lengths_law(garbage)


@torch.no_grad()
def length_law_float64(trial: Trial) -> None:
    """The same to twelve digits in float64: what is off by little is found there."""
    trial.model.double()
    length_law(trial)


@torch.no_grad()
def equal_lengths(trial: Trial) -> None:
    """Without ``lengths`` all frames count."""
    if not trial.has_time:
        raise Skipped("sequences have no frames")
    batch = trial.equals()
    lengths = torch.tensor([trial.frames[0]] * 2, device=trial.device)
    hold_equal(trial.model(batch), trial.model(batch, lengths), trial.tolerance)


@torch.no_grad()
def order(trial: Trial) -> None:
    """Equal calls give equal numbers, and the order of sequences does not matter."""
    counts = (*trial.frames[:2], max(trial.frames[:2]))
    batch, lengths = trial.batch(counts, garbage=0.5)
    first = trial.model(batch, lengths)
    again = trial.model(batch, lengths)
    hold(
        torch.equal(again.embeddings, first.embeddings),
        "expected the same embeddings in two calls, got others; leave chance out in eval mode",
    )
    swapped = trial.model(
        each_tensor(batch, lambda x: x.flip(0)), None if lengths is None else lengths.flip(0)
    )
    error = largest_difference(swapped.embeddings.flip(0), first.embeddings)
    hold(error < trial.tolerance, f"expected order-free embeddings, got a difference of {error}")


@torch.no_grad()
def shapes(trial: Trial) -> None:
    """Outputs have the parts, features and classes that the model names."""
    model = trial.model
    output = model(trial.equals())
    hold(isinstance(output, GaitOutput), f"expected a GaitOutput, got {type(output).__name__}")
    wanted = (2, model.num_parts, model.num_features)
    got = tuple(output.embeddings.shape)
    hold(got == wanted, f"expected embeddings {wanted} (num_parts, num_features), got {got}")
    if not model.num_classes:
        hold(output.logits is None, "expected logits None of a model with num_classes 0, got some")
        return
    got = None if output.logits is None else tuple(output.logits.shape)
    # Some models classify the parts joined into one vector.
    wanted = [(2, num_parts, model.num_classes) for num_parts in (model.num_parts, 1)]
    hold(got in wanted, f"expected logits {wanted[0]} (num_parts, num_classes), got {got}")


@torch.no_grad()
def classes(trial: Trial) -> None:
    """``reset_classifier`` changes the logits and nothing else."""
    model = trial.model
    if not has_place_for_classes(model):
        model.reset_classifier(0)
        try:
            model.reset_classifier(3)
        except ValueError as error:
            raise Skipped("the model has no classifier") from error
        hold(
            model.num_classes == 3,
            "expected classifier_key to name the classifier that reset_classifier made, got "
            f"{model.classifier_key!r}",
        )
    batch = trial.equals()
    before = model(batch).embeddings
    for num_classes in (11, 0):
        model.reset_classifier(num_classes)
        got = model.num_classes
        hold(got == num_classes, f"expected num_classes {num_classes}, got {got}")
        model.eval().to(trial.device)
        shapes(trial)
        hold(
            torch.equal(model(batch).embeddings, before),
            "expected embeddings that do not depend on the classifier, got others",
        )


@torch.no_grad()
def features(trial: Trial) -> None:
    """``forward`` is ``forward_features``, then ``forward_head``."""
    model = trial.model
    if type(model).forward_features is GaitModel.forward_features:
        raise Skipped("the model has no forward_features")
    batch, lengths = trial.pair(float("nan") if trial.has_time else 0.0)
    maps, counts = model.forward_features(batch, lengths)
    several = zip(maps, counts, strict=True) if isinstance(maps, tuple) else [(maps, counts)]
    of_maps = trial.has_time and all(find_modality(name).is_map for name in model.modalities)
    for one, count in several:
        got = list(one.shape)
        hold(got[0] == 2, f"expected features of 2 sequences, got {got}")
        if of_maps:
            hold(one.ndim == 5, f"expected features [N, C, T', H', W'], got {got}")
            fits = count is not None and count.shape == (2,) and count.max() <= got[2]
            hold(bool(fits), f"expected lengths [2] of at most {got[2]} frames, got {count}")
    output = model.forward_head(maps, counts)
    hold(
        torch.equal(output.embeddings, model(batch, lengths).embeddings),
        "expected forward_head(*forward_features(...)) to give what forward gives, got others",
    )


@torch.no_grad()
def grey_levels(trial: Trial) -> None:
    """uint8 is divided by 255; labels are taken as they are."""
    meanings = {name: find_modality(name).bytes_mean for name in trial.model.modalities}
    if set(meanings.values()) == {"none"}:
        raise Skipped(f"{', '.join(meanings)} are never bytes")
    sequences = by_name(trial.model.modalities, trial.equals())
    as_bytes, as_floats = dict(sequences), dict(sequences)
    for name, tensor in sequences.items():
        if meanings[name] != "none":
            scale = 255 if meanings[name] == "grey levels" else 1
            as_bytes[name] = (tensor.clamp(min=0) * scale).to(torch.uint8)
            as_floats[name] = as_bytes[name].to(trial.dtype) / scale
    several = len(sequences) > 1
    (wanted, found) = (
        trial.model(each if several else next(iter(each.values())))
        for each in (as_floats, as_bytes)
    )
    hold_equal(found, wanted, 1e-6)


def bad_inputs(trial: Trial) -> None:
    """What cannot be meant is refused before anything is computed."""
    model = trial.model.cpu()
    trial = Trial(model, trial.frames)
    good, lengths = trial.pair()
    for error, words, inputs, counts in _bad_calls(trial, good, lengths):
        try:
            model(inputs, counts)
        except error:
            continue
        except Exception as other:
            got = f"{type(other).__name__}: {other}"
        else:
            got = "embeddings"
        hold(
            False,
            f"expected a {error.__name__} for {words}, got {got}; begin forward with "
            "inputs, lengths = self.prepare(inputs, lengths)",
        )


def _bad_calls(
    trial: Trial, good: Any, lengths: Tensor | None
) -> Iterator[tuple[type[Exception], str, Any, Any]]:
    """Kinds of errors, what is wrong in words, and arguments to call with."""
    names = trial.model.modalities
    for name, tensor in by_name(names, good).items():

        def other(value: Any, name: str = name) -> Any:
            return {**good, name: value} if isinstance(good, Mapping) else value

        yield TypeError, f"{name} as an array", other(tensor.numpy()), lengths
        yield TypeError, f"{name} as int64", other(tensor.long()), lengths
        yield ValueError, f"{name} without the axis N", other(tensor[0]), lengths
        yield ValueError, f"{name} without numbers", other(tensor[..., :0]), lengths
        yield ValueError, f"{name} with NaN", other(tensor * float("nan")), lengths
        if find_modality(name).value_range is not None:
            yield ValueError, f"{name} out of range", other(tensor * 255 + 255), lengths
    yield ValueError, "other modalities", {"others": good}, lengths
    if len(names) > 1:
        yield TypeError, "one tensor instead of a mapping", next(iter(good.values())), lengths
    if lengths is None:
        yield ValueError, "lengths where nothing has frames", good, torch.tensor([1, 1])
        return
    most = int(lengths.max())
    yield TypeError, "lengths as a list", good, lengths.tolist()
    yield TypeError, "lengths as floats", good, lengths.float()
    yield TypeError, "lengths as booleans", good, lengths > 1
    yield ValueError, "too few lengths", good, lengths[:1]
    yield ValueError, "lengths beyond the frames", good, torch.tensor([most, most + 1])
    yield ValueError, "an empty sequence", good, torch.tensor([most, 0])


def gradients(trial: Trial) -> None:
    """Training reaches every parameter that is not frozen."""
    model = trial.model.train()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise Skipped("no parameter is trained")
    output = model(*trial.batch((*trial.frames[:2], trial.frames[0])))
    _loss(output).backward()
    for key, parameter in trained.items():
        hold(parameter.grad is not None, f"expected a gradient of {key}, got none; is it used?")
        assert parameter.grad is not None
        hold(bool(parameter.grad.isfinite().all()), f"expected finite gradients of {key}, got NaN")
        hold(bool((parameter.grad != 0).any()), f"expected a gradient of {key}, got zeros")


def checkpointing(trial: Trial) -> None:
    """``set_grad_checkpointing`` saves memory and changes no gradient."""
    model = trial.model
    # Batch statistics move with every forward pass, so they are left out of the comparison.
    for module in model.modules():
        module.training = not isinstance(module, nn.modules.batchnorm._NormBase)
    batch, lengths = trial.pair(float("nan") if trial.has_time else 0.0)
    found = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(0)  # of dropout
        loss = _loss(model(batch, lengths))
        if not loss.requires_grad:
            raise Skipped("no parameter is trained")
        loss.backward()
        found.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    plain, recomputed = found
    hold(plain.keys() == recomputed.keys(), "expected gradients of the same parameters, got others")
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, msg=lambda m, k=key: f"{k}: {m}")


@torch.no_grad()
def autocast(trial: Trial) -> None:
    """bfloat16 under autocast stays close: cosine of more than 0.999."""
    batch, lengths = trial.pair(float("nan") if trial.has_time else 0.0)
    wanted = trial.model(batch, lengths).embeddings.flatten(1)
    fill_freed_memory(trial.device)
    with torch.autocast(trial.device.type, torch.bfloat16):
        found = trial.model(batch, lengths).embeddings.flatten(1).to(wanted.dtype)
    cosine = nn.functional.cosine_similarity(found, wanted).min().item()
    # Eight bits of mantissa through a handful of layers.
    hold(cosine > 0.999, f"expected a cosine above 0.999 under autocast, got {cosine:.4f}")


def _loss(output: GaitOutput) -> Tensor:
    """A number that depends on every output, and is not constant for outputs of one norm."""
    found = [getattr(output, field.name) for field in fields(output)]
    outputs = [x for x in found if isinstance(x, Tensor) and x.is_floating_point()]
    outputs += getattr(output, "aux", {}).values()
    source = torch.Generator().manual_seed(0)
    weights = [torch.rand(x.shape, generator=source).to(x) for x in outputs]
    return torch.stack(
        [(x.square() * w).sum() for x, w in zip(outputs, weights, strict=True)]
    ).sum()
