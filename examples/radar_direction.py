"""Learn which way people walk from simulated radar maps, and draw how the maps are enhanced."""

import argparse

import torch
from torch import Tensor

import gaitzoo

DIRECTIONS = (0, 45, 60, 90)  # degrees from the line of sight; left and right look alike here
ROWS, COLUMNS = 96, 128  # Doppler, time


def doppler_time_map(direction: int, generator: torch.Generator) -> Tensor:
    """Simulate the map of one walk: a torso, two legs and two arms that move towards a radar."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(1, generator=generator)

    time = torch.linspace(0, 3, COLUMNS)  # seconds
    speed, phase = draw(1.2, 1.5), draw(0, 6.28)
    swing = torch.sin(2 * torch.pi * draw(0.8, 1.1) * time + phase)
    towards = torch.cos(torch.deg2rad(torch.tensor(direction + float(draw(-4, 4)))))
    doppler = torch.linspace(-5, 5, ROWS)[:, None]  # metres per second
    image = torch.zeros(ROWS, COLUMNS)
    for share, strength, width in ((0, 1.0, 0.25), (1.1, 0.6, 0.45), (0.5, 0.4, 0.35)):
        for sign in (1, -1):
            velocity = speed * towards * (1 + sign * share * swing)
            image += strength * torch.exp(-(((doppler - velocity) / width) ** 2))
    return image + 0.15 * torch.rand(ROWS, COLUMNS, generator=generator)


def walks(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Simulate ``count`` walks per direction: ``[N, 1, ROWS, COLUMNS]`` and class numbers."""
    maps = [doppler_time_map(d, generator) for d in DIRECTIONS for _ in range(count)]
    return torch.stack(maps)[:, None], torch.arange(len(DIRECTIONS)).repeat_interleave(count)


def draw_steps(path: str, generator: torch.Generator) -> None:
    """Draw the map of every direction, what is kept of it, and the image for the network."""
    from matplotlib.figure import Figure

    preprocess = gaitzoo.DopplerTimeMapPreprocessor()
    maps, _ = walks(1, generator)
    rows = (maps[:, 0], preprocess.kept(maps)[:, 0], preprocess(maps).movedim(1, -1))
    figure = Figure(figsize=(9, 6.6), dpi=110, layout="constrained")
    axes = figure.subplots(3, len(DIRECTIONS))
    for line, words, images in zip(axes, ("map", "kept", "image"), rows, strict=True):
        for place, direction, image in zip(line, DIRECTIONS, images, strict=True):
            place.imshow(image, cmap="gray", aspect="auto", origin="lower")
            place.set(xticks=[], yticks=[], title=f"{direction} degrees, {words}")
    figure.supxlabel("time")
    figure.supylabel("Doppler: away from the radar to towards it")
    figure.savefig(path)


def main() -> None:
    """Read the command line, simulate, train, test on other walks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=40, help="walks per direction to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--picture", help="picture to write instead of training")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    if options.picture:
        draw_steps(options.picture, generator)
        return
    torch.manual_seed(0)
    preprocess = gaitzoo.DopplerTimeMapPreprocessor()
    maps, labels = walks(options.walks, generator)
    test_maps, test_labels = walks(20, generator)
    images, test_images = preprocess(maps), preprocess(test_maps)

    model = gaitzoo.sbcformer_xs(num_classes=len(DIRECTIONS), img_size=64)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.47e-3, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    for epoch in range(options.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        # Never mirrored: that would show another direction.
        for batch in order.split(16):
            loss = criterion(model(images[batch]).logits[:, 0], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        scheduler.step()
        right = (model.eval().predict(test_images) == test_labels).float().mean()
        print(
            f"epoch {epoch + 1}: loss {total / len(images):.3f}, {100 * right:.1f} % of "
            f"{len(test_labels)} other walks right"
        )


if __name__ == "__main__":
    main()
