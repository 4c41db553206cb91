"""A small convolutional network on the handwritten digits that ship with scikit-learn (1,797 images of 8 x 8)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from training import progress

BATCH = 64


class DigitsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        )
        self.classify = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))


def data():
    """(train images, train labels, test images, test labels) on the CPU; images [n, 1, 8, 8] in [0, 1]."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    parts = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    return parts[0], parts[2], parts[1], parts[3]


def make_step(device: torch.device, images: torch.Tensor, labels: torch.Tensor):
    """A model on `device` and a function that trains it on one batch that lies there."""
    torch.manual_seed(0)
    model = DigitsNet().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, labels = images[:BATCH].to(device), labels[:BATCH].to(device)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def train(device: torch.device, epochs: int = 12) -> tuple[nn.Module, float, torch.Tensor]:
    """Trains on `device`; returns the model, its accuracy on the test set and its predictions there."""
    torch.manual_seed(0)
    train_x, train_y, test_x, test_y = data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(train_x, train_y), batch_size=BATCH, shuffle=True,
                                         pin_memory=device.type == "npu")
    model = DigitsNet().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs=epochs, steps_per_epoch=len(loader))
    with progress(epochs * len(loader), f"digits on {device}") as bar:
        for _ in range(epochs):
            model.train()
            for images, labels in loader:
                images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        predictions = model(test_x.to(device)).argmax(1).cpu()
    return model, (predictions == test_y).float().mean().item(), predictions


def draw(path: str, predictions: torch.Tensor) -> None:
    """A picture of test images with what the network says; wrong answers in red."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, _, images, labels = data()
    wrong = (predictions != labels).nonzero().flatten().tolist()
    shown = wrong[:16] + [i for i in range(len(labels)) if i not in set(wrong)][:64 - min(16, len(wrong))]
    figure, axes = pyplot.subplots(4, 16, figsize=(12, 4))
    for axis, i in zip(axes.flat, shown):
        axis.imshow(images[i, 0], cmap="gray_r")
        right = predictions[i] == labels[i]
        axis.set_title(f"{predictions[i]}" + ("" if right else f" ({labels[i]})"), color="black" if right else "red", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    accuracy = (predictions == labels).float().mean().item()
    figure.suptitle(f"Handwritten digits, test set: {accuracy:.1%} right; {len(wrong)} of {len(labels)} wrong (in red, truth in brackets)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
