"""How well each class is recognised: its recall, and the mean over classes, the balanced accuracy.

>>> by_class(torch.tensor([3, 1]), torch.tensor([4, 2]))
{'balanced_accuracy': 0.625, 'recall/0': 0.75, 'recall/1': 0.5}
"""

from __future__ import annotations

from torch import Tensor


def by_class(hits: Tensor, counts: Tensor) -> dict[str, float]:
    """Balanced accuracy and the recall of each class.

    Args:
        hits: images of each class that were recognised, [classes].
        counts: images of each class, [classes].

    Returns:
        The metrics by name; the recall of a class without images is NaN and not in the mean.
    """
    recalls = hits.double() / counts
    each = {f"recall/{k}": recall for k, recall in enumerate(recalls.tolist())}
    return {"balanced_accuracy": float(recalls.nanmean()), **each}
