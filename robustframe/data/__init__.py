"""Datasets: shipped test splits, torchvision's, and the user's own arrays."""

from robustframe.data.dataset import Dataset, from_arrays, identity
from robustframe.data.given import as_dataset
from robustframe.data.loaders import available, load
from robustframe.data.own import from_file, from_folder

__all__ = ["Dataset", "as_dataset", "available", "from_arrays", "from_file", "from_folder", "identity", "load"]
