"""Mesh-Gait, a reconstruction: places in volumes, meshes of markers, what training sees."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative_error

import gaitzoo
from gaitzoo import (
    AuxOutput,
    HeatmapEncoder,
    MarkerToMesh,
    MeshGait,
    MeshGaitLoss,
    VolumetricHeatmapHead,
    load_marker_basis,
    markers_from_vertices,
    soft_argmax_3d,
)
from gaitzoo.models.multi_task_loss import IdentityLoss
from gaitzoo.testing.trial import reset_statistics

NAN = float("nan")
EXAMPLE = Path(__file__).parents[2] / "examples" / "find_walker_joints.py"
TINY = {
    "num_classes": 0,
    "backbone": "gaitbase",
    "channels": (2, 3, 4, 5),
    "part_bins": (4,),
    "num_joints": 3,
    "num_markers": 2,
    "depth": 3,
}


# ---------------------------------------------------------------------- places in volumes


def test_one_voxel_is_found_and_two_are_met_halfway():
    volumes = torch.zeros(2, 4, 8, 10, dtype=torch.float64)
    volumes[0, 1, 6, 3] = 1
    volumes[1, 0, 2, 1] = volumes[1, 2, 4, 9] = 0.5
    points, confidence = soft_argmax_3d(volumes)
    assert points[0].tolist() == pytest.approx([3 / 10 - 0.5, 6 / 8 - 0.5, 1 / 4 - 0.5])
    assert points[1].tolist() == pytest.approx([5 / 10 - 0.5, 3 / 8 - 0.5, 1 / 4 - 0.5])
    assert confidence.tolist() == [1, 0]


def test_places_are_sums_over_all_voxels():
    volumes = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64)
    volumes /= volumes.sum((2, 3, 4), keepdim=True)
    points, confidence = soft_argmax_3d(volumes)
    for n, k in np.ndindex(2, 3):
        wanted = np.zeros(3)
        for z, y, x in np.ndindex(4, 5, 6):
            wanted += volumes[n, k, z, y, x].item() * np.array([x / 6, y / 5, z / 4])
        torch.testing.assert_close(points[n, k], torch.from_numpy(wanted - 0.5))
        x, y, z = (round(v) for v in (wanted * [6, 5, 4]).tolist())
        assert confidence[n, k] == volumes[n, k, z, y, x]


def test_a_mirrored_map_gives_mirrored_places_up_to_the_grid():
    head = VolumetricHeatmapHead(3, 5, 4)
    x = torch.randn(2, 3, 8, 6)
    scores, volumes = head(x)
    assert scores.shape == volumes.shape == (2, 5, 4, 8, 6)
    torch.testing.assert_close(volumes.sum((2, 3, 4)), torch.ones(2, 5))
    points, flipped = (soft_argmax_3d(head(y)[1])[0] for y in (x, x.flip(-1)))
    torch.testing.assert_close(flipped[..., 0], -points[..., 0] - 1 / 6)
    torch.testing.assert_close(flipped[..., 1:], points[..., 1:])
    middles, turned = (soft_argmax_3d(head(y)[1], centred=True)[0] for y in (x, x.flip(-1)))
    torch.testing.assert_close(turned[..., 0], -middles[..., 0])
    torch.testing.assert_close(middles, points + 0.5 / torch.tensor([6, 8, 4]))


def test_an_even_volume_is_one_everywhere_to_the_encoder():
    encoder = HeatmapEncoder(3, 4, 6).eval()
    reset_statistics(encoder)
    seen = []
    encoder.squeeze.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(torch.full((2, 3, 4, 8, 6), 1 / (4 * 8 * 6)))
    torch.testing.assert_close(seen[0], torch.ones(2, 12, 8, 6))
    fused = encoder.squeeze.fused(torch.float32)
    x = torch.rand(2, 12, 8, 6)
    torch.testing.assert_close(fused(x), encoder.squeeze(x))


def test_shapes_that_do_not_fit_are_refused():
    for call, message in (
        (lambda: soft_argmax_3d(torch.rand(2, 3)), r"volumes \[..., D, H, W\]"),
        (lambda: soft_argmax_3d(torch.ones(2, 3, 4, 5)), "sum to one, got volumes off by up to 59"),
        (lambda: soft_argmax_3d(torch.full((1, 3, 4, 5), NAN)), "off by up to nan"),
        (lambda: VolumetricHeatmapHead(3, 5)(torch.rand(2, 4, 8, 6)), r"a map \[B, 3, H, W\]"),
        (lambda: HeatmapEncoder(3, 4)(torch.rand(2, 4, 3, 8, 6)), r"volumes \[B, 3, 4, H, W\]"),
        (lambda: MarkerToMesh(), "both or none"),
        (lambda: MarkerToMesh(torch.rand(2, 3), adaptive=True), "both or none"),
        (lambda: MarkerToMesh(torch.rand(2, 3))(torch.rand(3, 3)), r"markers \[..., 2, 3\]"),
        (lambda: MarkerToMesh(None, 2, 4, adaptive=True)(torch.rand(2, 3)), "confidence"),
        (lambda: markers_from_vertices(torch.rand(4, 3), torch.rand(5, 2)), r"selector \[V, K\]"),
        (lambda: MeshGait(fusion="mean"), "fusion among concat, sum, separate"),
        (lambda: MeshGait(stages=0), "stages as a positive"),
        (lambda: MeshGait(**TINY).set_marker_basis(torch.rand(3, 7)), r"basis \[2, V\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---------------------------------------------------------------------- meshes


def basis_and_selector(markers=3, vertices=7):
    basis = torch.rand(markers, vertices)
    selector = torch.eye(vertices)[:, [5, 0, 3][:markers]]
    return basis / basis.sum(0), selector


def test_a_fixed_mesh_is_linear_and_moves_with_its_markers():
    basis, selector = basis_and_selector()
    mesh = MarkerToMesh(basis)
    one, other = torch.randn(2, 4, 7, 3)
    assert torch.equal(markers_from_vertices(one, selector), one[:, [5, 0, 3]])

    def whole(vertices):
        return mesh(markers_from_vertices(vertices, selector))

    torch.testing.assert_close(whole(2 * one + other), 2 * whole(one) + whole(other))
    shift = torch.randn(3)
    torch.testing.assert_close(whole(one + shift), whole(one) + shift)


def test_adaptive_weights_are_trained_and_teach_the_points_nothing():
    with torch.device("meta"):
        full = MarkerToMesh(adaptive=True)
    assert sum(p.numel() for p in full.parameters()) == 82 * 81 * 6890  # 45.8 million
    mesh = MarkerToMesh(None, 3, 5, adaptive=True)
    points, confidence = torch.rand(2, 3, 3), torch.rand(2, 3)
    points.requires_grad_()
    confidence.requires_grad_()
    vertices = mesh(points, confidence)
    table = mesh.weights(confidence).view(2, 5, 3)
    torch.testing.assert_close(vertices, torch.einsum("nvk,nkd->nvd", table, points))
    vertices.sum().backward()
    assert points.grad is None
    assert confidence.grad is None
    assert (mesh.weights.weight.grad != 0).any()


def sparse(table, kind):
    """A file of scipy.sparse.save_npz, by its description."""
    rows, columns = np.nonzero(table)
    if kind == "csc":
        order = np.lexsort((rows, columns))
        rows, columns = rows[order], columns[order]
    data = {"format": kind.encode(), "shape": table.shape, "data": table[rows, columns]}
    if kind == "coo":
        return {**data, "row": rows, "col": columns}
    own, other = (rows, columns) if kind == "csr" else (columns, rows)
    size = table.shape[0 if kind == "csr" else 1]
    return {**data, "indices": other, "indptr": np.searchsorted(own, np.arange(size + 1))}


@pytest.mark.parametrize("kind", ["both", "dense", "csr", "csc", "coo"])
def test_tables_are_read_from_files(kind, tmp_path):
    basis, selector = (x.numpy() for x in basis_and_selector())
    basis[0, 2], basis[1:, 2] = 0, 0.5
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    if kind == "both":
        np.savez(paths[0], A=basis, B=selector)
        paths = paths[:1]
    else:
        for path, table in zip(paths, (basis, selector), strict=True):
            np.savez(path, **({"t": table} if kind == "dense" else sparse(table, kind)))
    found = load_marker_basis(*paths)
    for one, wanted in zip(found, (basis, selector), strict=True):
        assert torch.equal(one, torch.from_numpy(wanted))


def test_files_that_are_no_tables_are_refused(tmp_path):
    basis, selector = (x.numpy() for x in basis_and_selector())
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match="which is none"):
        load_marker_basis(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="another kind of file"):
        load_marker_basis(path)
    for arrays, message in (
        ({"A": basis}, "arrays A and B .* got A"),
        ({"A": basis, "B": np.array([object()])}, "plain arrays"),
        ({"A": basis, "B": selector[:5]}, r"A \[K, V\] and B \[V, K\]"),
        ({"A": 2 * basis, "B": selector}, "sum to one"),
        ({"A": basis * NAN, "B": selector}, "finite numbers"),
        ({"A": basis, "B": selector * 0}, "one vertex per marker"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            load_marker_basis(path)
    np.savez(path, **{**sparse(basis, "csr"), "indices": np.full(99, 99)})
    with pytest.raises(ValueError, match="a sparse table in"):
        load_marker_basis(path, path)


# ---------------------------------------------------------------------- the model


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["gaitbase", "deepgaitv2_2d", "deepgaitv2_p3d"])
@pytest.mark.parametrize("markers", [16, 96])
def test_geometry_of_any_length_backbone_and_number_of_markers(backbone, markers):
    arguments = {**TINY, "backbone": backbone, "num_markers": markers}
    model = MeshGait(**arguments, layers=(1, 1, 1, 1)).eval()
    for frames in (1, 60):
        aux = model(torch.rand(2, frames, 16, 12), return_geometry=True).aux
        assert {name: tuple(x.shape) for name, x in aux.items()} == {
            "joints": (2, frames, 3, 3),
            "markers": (2, frames, markers, 3),
            "confidence": (2, frames, 3 + markers),
        }


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments", [{}, {"fusion": "sum"}, {"fusion": "separate"}, {"stages": 2}]
)
def test_fusions_and_stages_embed_alike_with_and_without_geometry(arguments):
    model = MeshGait(**{**TINY, **arguments}).eval().double()
    reset_statistics(model)
    model.set_marker_basis(torch.tensor([[1.0, 0.5], [0.0, 0.5]]))
    clips, lengths = torch.rand(2, 5, 16, 12).double(), torch.tensor([5, 2])
    clips[1, 2:] = NAN
    output = model(clips, lengths, return_geometry=True)
    assert output.aux["vertices"].shape == (2, 5, 2, 3)
    assert ("joints.0" in output.aux) == ("stages" in arguments)
    model.mesh = None  # no longer needed
    plain = model(clips, lengths)
    assert plain.aux == {}
    assert torch.equal(plain.embeddings, output.embeddings)
    alone = model(clips[1:, :2], return_geometry=True)
    assert relative_error(output.embeddings[1], alone.embeddings[0]) < 1e-12
    assert relative_error(output.aux["joints"][1, :2], alone.aux["joints"][0]) < 1e-12
    fused = gaitzoo.fuse_for_inference(model)
    assert not fused.unfused_norms or all("neck" in name for name in fused.unfused_norms)
    assert relative_error(fused(clips, lengths).embeddings, plain.embeddings) < 1e-10
    pieces = [maps for maps, _ in model.temporal_maps(clips[:1])]
    assert len(pieces) == (2 if arguments.get("fusion") == "separate" else 1)


@pytest.mark.parametrize("detach", [False, True])
def test_recognition_reaches_the_volumes_unless_detached(detach):
    model = MeshGait(**TINY, detach_heatmap=detach).train()
    model(torch.rand(2, 3, 16, 12)).embeddings.square().sum().backward()
    head = model.volumes[0].heatmaps
    reached = [p.grad is not None and bool((p.grad != 0).any()) for p in head.parameters()]
    assert reached == [not detach] * 3
    model(torch.rand(2, 3, 16, 12)).aux["joints"].square().sum().backward()
    assert all((p.grad != 0).any() for p in head.parameters())


def test_it_is_shown_as_a_reconstruction_without_weights():
    assert gaitzoo.model_info("mesh_gait").fidelity == "reconstruction"
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("mesh_gait", pretrained=True)
    with torch.device("meta"):
        model = gaitzoo.create_model("mesh_gait", num_classes=0)
        assert model.volumes[0].heatmaps.conv.out_channels == 81 * 16
    assert sum(p.numel() for p in model.parameters()) == 16_953_585


# ---------------------------------------------------------------------- the loss

LABELS = torch.tensor([0, 0, 1, 1])


def output_of():
    source = torch.Generator().manual_seed(0)
    return AuxOutput(
        torch.rand(4, 3, 8, generator=source),
        aux={
            "joints": torch.rand(4, 5, 3, 3, generator=source).requires_grad_(),
            "joints.0": torch.rand(4, 5, 3, 3, generator=source),
            "markers": torch.rand(4, 5, 2, 3, generator=source),
            "confidence": torch.rand(4, 5, 5, generator=source),
        },
    )


def test_only_valid_frames_with_targets_count():
    output, identity = output_of(), IdentityLoss()(output_of(), LABELS)
    targets = {"joints": torch.rand(4, 5, 3, 3)}
    valid = torch.rand(4, 5) < 0.5
    found = []
    for garbage in (0.0, NAN):
        targets["joints"][~valid] = garbage
        output.aux["joints"].grad = None
        loss = MeshGaitLoss()(output, LABELS, targets, valid)
        loss.backward()
        found.append((loss.item(), output.aux["joints"].grad.clone()))
    torch.testing.assert_close(found[0], found[1])
    wanted = sum(
        (output.aux[name] - targets["joints"])[valid].abs().mean()
        for name in ("joints", "joints.0")
    )
    torch.testing.assert_close(loss, identity + wanted)
    assert not output.aux["joints"].grad[~valid].any()
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    assert MeshGaitLoss()(output, LABELS, targets, nothing) == identity
    assert MeshGaitLoss()(output, LABELS, {}) == identity


def test_weights_of_the_loss_name_its_terms():
    output, identity = output_of(), IdentityLoss()(output_of(), LABELS)
    loss = MeshGaitLoss({"markers": 2.0, "confidence": 0.1})
    wanted = identity + 2 * output.aux["markers"].abs().mean()
    wanted = wanted - 0.1 * output.aux["confidence"].log().mean()
    targets = {"joints": torch.zeros(4, 5, 3, 3), "markers": torch.zeros(4, 5, 2, 3)}
    torch.testing.assert_close(loss(output, LABELS, targets), wanted)


def test_losses_refuse_what_cannot_be_meant():
    with pytest.raises(ValueError, match="weights of joints, markers, vertices and confidence"):
        MeshGaitLoss({"edges": 1.0})
    output, loss = output_of(), MeshGaitLoss()
    with pytest.raises(ValueError, match="targets of joints, markers, vertices, got knees"):
        loss(output, LABELS, {"knees": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"an output with vertices, .* set_marker_basis"):
        loss(output, LABELS, {"vertices": torch.zeros(4, 5, 7, 3)})
    with pytest.raises(ValueError, match=r"joints \[4, 5, 3, 3\], got \[4, 5, 17, 3\]"):
        loss(output, LABELS, {"joints": torch.zeros(4, 5, 17, 3)})
    with pytest.raises(TypeError, match="bool tensor"):
        loss(output, LABELS, {"joints": torch.zeros(4, 5, 3, 3)}, torch.ones(4, 5))


# ---------------------------------------------------------------------- what it learns


def blobs(count, source):
    """Discs that move: where they are says x and y, how large they are says z."""
    points = (torch.rand(count, 4, 1, 3, generator=source) - 0.5) * 0.6
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(24), indexing="ij")
    x, y, z = (points[..., i, None] for i in range(3))
    distance = ((columns / 24 - 0.5 - x) * 24).square() + ((rows / 32 - 0.5 - y) * 32).square()
    return (distance.sqrt() < 5 + 8 * z).float(), points


def test_moving_blobs_are_found_within_a_voxel():
    source = torch.Generator().manual_seed(0)
    model = MeshGait(
        num_classes=0,
        backbone="gaitbase",
        channels=(4, 4, 8, 8),
        part_bins=(8,),
        num_joints=1,
        num_markers=1,
        depth=8,
    )
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(60):
        clips, points = blobs(4, source)
        loss = (model(clips).aux["joints"] - points).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clips, points = blobs(32, source)
    with torch.no_grad():
        found = model.eval()(clips, return_geometry=True).aux["joints"]
    error = ((found - points) * torch.tensor([6, 8, 8])).norm(dim=-1).mean()
    assert error < 1.0


def test_walkers_joints_are_found_where_silhouettes_show_them():
    spec = importlib.util.spec_from_file_location("find_walker_joints", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    frames, joints = example.film_many(range(96), 0.0)
    unseen, wanted = example.film_many(range(1000, 1024), 0.0)
    found = example.find(example.train(frames, joints, 60, 16), unseen)
    share = example.errors(found, wanted) / example.errors(joints.mean(0), wanted)
    # From the front, limbs spread sideways; which of them is in front is not seen.
    assert share[0] < 0.7
    assert share[2] > 0.9
