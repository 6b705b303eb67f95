"""Layers that add forces: nothing at first, nothing without forces, gradients, masks, files."""

import numpy as np
import pytest
import torch
from conftest import relative_error
from torch import nn

from gaitzoo import (
    ForceCrossAttention,
    ForceEncoder,
    ForceFiLM,
    ForceGate,
    ForceParts,
    PhysPTForces,
    concat_forces,
    load_force_npz,
    pool_forces,
    widen_channels,
)

PARTS, VECTOR, TOKENS = (3, 5, 8), (3, 6), (3, 6, 4)
# Layer, shape of what it changes, shape of the forces, shape of the mask.
CASES = {
    "film": (ForceFiLM, (3, 8, 4, 2, 2), TOKENS, (3, 4)),
    "gate": (ForceGate, PARTS, VECTOR, (3,)),
    "parts": (ForceParts, PARTS, VECTOR, (3,)),
    "attention": (ForceCrossAttention, PARTS, TOKENS, (3, 4)),
}


def same(layer, found, x):
    """The layer's own part of the result is the input, and a part more is zero."""
    if isinstance(layer, ForceParts):
        return torch.equal(found[:, :-1], x) and not found[:, -1].any()
    return torch.equal(found, x)


@pytest.mark.parametrize("name", CASES)
def test_layers_change_nothing_at_first_and_never_without_forces(name):
    kind, shape, force_shape, mask_shape = CASES[name]
    x, forces = torch.rand(shape), torch.rand(force_shape)
    layer = kind(8, 6)
    assert same(layer, layer(x, forces), x)
    layer = kind(8, 6, zero_init=False)
    assert not same(layer, layer(x, forces), x)
    assert same(layer, layer(x, None), x)
    assert same(layer, layer(x, forces, torch.zeros(mask_shape, dtype=torch.bool)), x)
    valid = torch.ones(mask_shape, dtype=torch.bool)
    assert torch.equal(layer(x, forces, valid), layer(x, forces))
    valid[1] = False
    mixed, all_of_them = layer(x, forces, valid), layer(x, forces)
    assert same(layer, mixed[1:2], x[1:2])
    assert torch.allclose(mixed[::2], all_of_them[::2])


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_the_encoder_after_one_step(name):
    kind, shape, force_shape, _ = CASES[name]
    encoder, layer = ForceEncoder("coco17", 6, 4), kind(8, 6)
    optimizer = torch.optim.SGD([*encoder.parameters(), *layer.parameters()], lr=0.1)
    forces, weights = torch.randn(3, 4, 17, 3), torch.rand((*shape[:1], 6, 8))
    for _ in range(2):
        optimizer.zero_grad()
        tokens, seen = encoder(0.1 * forces)
        given = tokens if len(force_shape) == 3 else pool_forces(tokens, seen)
        found = layer(torch.ones(shape), given)
        (found * (weights[:, : found.shape[1]] if found.ndim == 3 else 1)).sum().backward()
        optimizer.step()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_one_frame_of_the_film_is_scaled_by_its_own_forces():
    film = ForceFiLM(2, 3, zero_init=False)
    x, forces = torch.rand(1, 2, 4, 3, 3), torch.rand(1, 3, 4)
    changes = film.linear(forces[0, :, 2])
    for c in range(2):
        wanted = x[0, c, 2] * (1 + changes[c]) + changes[2 + c]
        assert torch.allclose(film(x, forces)[0, c, 2], wanted)


def test_gate_and_attention_are_those_of_a_loop():
    parts, vector, tokens = torch.rand(PARTS), torch.rand(VECTOR), torch.rand(TOKENS)
    gate = ForceGate(8, 6, zero_init=False)
    for n, p in ((0, 1), (2, 4)):
        share = gate.gate(torch.cat([parts[n, p], vector[n]])).sigmoid()
        wanted = parts[n, p] + share * (gate.value.weight @ vector[n])
        assert torch.allclose(gate(parts, vector)[n, p], wanted, atol=1e-6)
    layer = ForceCrossAttention(8, 6, num_heads=1, zero_init=False)
    a, valid = layer.attention, torch.tensor([[True, True, False, True]] * 3)
    bias = a.in_proj_bias.chunk(3)
    query = a.q_proj_weight @ parts[1, 2] + bias[0]
    keys, values = (
        torch.stack([w @ tokens[1, :, t] + b for t in (0, 1, 3)])
        for w, b in ((a.k_proj_weight, bias[1]), (a.v_proj_weight, bias[2]))
    )
    answer = (keys @ query / 8**0.5).softmax(0) @ values
    wanted = parts[1, 2] + a.out_proj(answer)
    assert torch.allclose(layer(parts, tokens, valid)[1, 2], wanted, atol=1e-6)


@torch.no_grad()
def test_the_encoder_gives_each_clip_its_own_tokens_whatever_is_padded_or_unknown():
    encoder = ForceEncoder("smpl24", 6, 4)
    clips = 0.1 * torch.randn(2, 7, 24, 3)
    clips[1, 3:] = float("nan")
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 2] = False
    clips[0, 2] = float("inf")
    tokens, seen = encoder(clips, torch.tensor([7, 3]), valid)
    assert seen.sum(1).tolist() == [6, 3]
    assert not tokens[0, :, 2].any()
    alone, _ = encoder(clips[1:, :3])
    assert torch.allclose(tokens[1, :, :3], alone[0], atol=1e-6)
    vector = pool_forces(tokens, seen)
    wanted = alone[0].mean(1) + alone[0].amax(1)
    assert torch.allclose(vector[1], wanted, atol=1e-6)
    assert not pool_forces(tokens, torch.zeros_like(seen)).any()
    # More than three units say no more than three.
    assert torch.equal(
        encoder(torch.full((1, 2, 24, 3), 9.0))[0], encoder(0.15 * torch.ones(1, 2, 24, 3))[0]
    )


def test_a_wider_first_layer_gives_what_it_gave():
    poses, torques = torch.rand(2, 5, 17, 3), torch.randn(2, 5, 17, 3)
    joined = concat_forces(poses, torques)
    assert torch.equal(joined[..., :3], poses)
    assert torch.equal(joined[..., 3:], torques)
    assert not concat_forces(poses, None)[..., 3:].any()
    valid = torch.zeros(2, 5, dtype=torch.bool)
    assert torch.equal(
        concat_forces(poses, torques * float("nan"), valid), concat_forces(poses, None)
    )
    for layer, put in (
        (nn.Linear(3, 4), lambda x: x),
        (nn.Conv1d(3, 4, 3, padding=1), lambda x: x[:, :, 0].transpose(1, 2)),
        (nn.Conv2d(3, 4, 3, stride=2), lambda x: x.permute(0, 3, 1, 2)),
    ):
        wide = widen_channels(layer, 3)
        assert relative_error(wide(put(joined)), layer(put(poses))) < 1e-6
        wide(put(joined)).square().sum().backward()
        assert wide.weight.grad is not None
        assert wide.weight.grad[:, 3:].abs().max() > 0
    with pytest.raises(ValueError, match="one group"):
        widen_channels(nn.Conv2d(4, 4, 1, groups=2), 2)
    with pytest.raises(TypeError, match="got ReLU"):
        widen_channels(nn.ReLU(), 2)
    with pytest.raises(ValueError, match=r"torques \[2, 5, 17, 3\]"):
        concat_forces(poses, torques[:, :4])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ForceFiLM(8, 6)(torch.rand(3, 8), None), ValueError, r"a map \[N, 8, T, ...\]"),
        (lambda: ForceFiLM(8, 6)(torch.rand(3, 8, 5), torch.rand(TOKENS)), ValueError, "per frame"),
        (lambda: ForceGate(8, 6)(torch.rand(3, 8), None), ValueError, r"parts \[N, P, 8\]"),
        (lambda: ForceGate(8, 6)(torch.rand(PARTS), torch.rand(3, 5)), ValueError, r"\[3, 6\]"),
        (
            lambda: ForceGate(8, 6)(torch.rand(PARTS), torch.rand(VECTOR), torch.ones(3)),
            TypeError,
            "booleans, got torch.float32",
        ),
        (lambda: ForceCrossAttention(6, 6), ValueError, "a multiple of 4 heads, got 6"),
        (lambda: ForceEncoder(unit=0), ValueError, "unit as a positive"),
        (lambda: ForceEncoder()(torch.rand(1, 2, 17, 3)), ValueError, r"\[N, T, 24, 3\]"),
        (
            lambda: ForceEncoder("coco17")(
                torch.rand(1, 2, 17, 3), valid=torch.ones(1, 3, dtype=torch.bool)
            ),
            ValueError,
            r"valid forces \[1, 2\], got \[1, 3\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_files_of_forces_are_put_at_their_frames(tmp_path):
    torques = np.arange(3 * 69, dtype=np.float64).reshape(3, 69)
    file = tmp_path / "physpt.npz"
    np.savez(file, pred_torques=torques, pred_grf=np.ones((3, 29, 3)), frame_idx=[1, 2, 4])
    forces = PhysPTForces.from_npz(file, num_frames=6)
    assert forces.valid.tolist() == [False, True, True, False, True, False]
    assert torch.equal(forces.torques[4, 1:].flatten(), torch.from_numpy(torques[2]).float())
    assert not forces.torques[:, 0].any()
    assert not forces.torques[~forces.valid].any()
    assert forces.grf.shape == (6, 29, 3)
    read, valid = load_force_npz(file)
    assert torch.equal(read, forces.torques[:5])
    assert torch.equal(valid, forces.valid[:5])
    np.savez(tmp_path / "own.npz", torques=np.ones((4, 17, 3)), valid=np.array([True, False] * 2))
    read, valid = load_force_npz(tmp_path / "own.npz", num_frames=4)
    assert (read.shape, valid.tolist()) == ((4, 17, 3), [True, False, True, False])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected torques or pred_torques"),
        ({"pred_torques": np.ones((2, 69))}, "expected frame_idx"),
        ({"pred_torques": np.ones((2, 69)), "frame_idx": [0, 0]}, "different whole numbers"),
        ({"pred_torques": np.ones((2, 69)), "frame_idx": [0, 9]}, "from 0 to 4"),
        ({"pred_torques": np.ones((2, 60)), "frame_idx": [0, 1]}, r"numbers \[2, 23, 3\]"),
        ({"torques": np.ones((5, 24))}, r"torques \[T, J, 3\]"),
        ({"torques": np.full((5, 24, 3), np.nan)}, "finite"),
        ({"torques": np.ones((4, 24, 3))}, "torques of 5 frames"),
        ({"torques": np.ones((5, 24, 3)), "valid": np.ones(5)}, "5 booleans"),
        ({"torques": np.array([None])}, "archive of arrays"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_a_reason(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_force_npz(tmp_path / "x.npz", num_frames=5)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match="archive of arrays"):
        load_force_npz(tmp_path / "x.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match="archive of arrays"):
        load_force_npz(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError, match="which is none"):
        load_force_npz(tmp_path / "nothing.npz")
