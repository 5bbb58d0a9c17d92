"""Maps on disk: a Zarr group, dense by sample index, that says what its maps are and which of them are finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from sightline._core.checks import check_choice
from sightline._core.files import is_new, replacing_folder, writing
from sightline._core.optional import requires_extra
from sightline._core.reading import reading
from sightline._core.tensors import check_shape
from sightline.errors import SightlineError

ADVICE = "remove the folder, and give the command that made it again"
FORMAT = "sightline maps 2"
SOME, ZERO = 1, 2  # marks of finished maps; Zarr keeps no file for maps that are all zero, and a file may get lost
DType = Literal["uint8", "float16"]
COMPRESSED = 2**16  # bytes that are compressed together, if a map is smaller


class MapStore:
    """The maps of a data set, read by sample index.

    A group of two Zarr arrays: `maps` (N, h, w) and `finished` (N,), where 0 is no. A file holds `chunk_size` maps. Large maps
    are compressed one by one, small maps in groups of up to 64 KiB. Zarr renames files into place, and a sample is marked as
    finished after its map is written, so a kill at any time leaves no incomplete maps. Several processes may write, each its
    own files.

    Args:
        path: the folder that `sightline.explainers.maps.compute_maps` made.

    Attributes:
        metadata: what the maps are of: fingerprints of model and data, the method with its options, the target layer, the
            classes that are explained.

    Raises:
        SightlineError: there is no such store.
    """

    def __init__(self, path: str | Path) -> None:
        with requires_extra("maps", "a store of maps"):
            import zarr

        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise SightlineError(
                f"{self.path} is not a store of maps; sightline.explainers.maps.compute_maps makes one"
            )
        with reading(self.path, ADVICE):
            group = zarr.open_group(self.path, mode="r+")
            self.metadata: dict[str, Any] = dict(group.attrs)
            if self.metadata.pop("format", None) != FORMAT:
                raise SightlineError(
                    f"{self.path} is a Zarr group, but no store of maps of this version; name another folder"
                )
            self._maps = zarr.open_array(self.path / "maps", mode="r+")
            self._finished = zarr.open_array(self.path / "finished", mode="r+")
        self._known = self._states()
        self._kept: Tensor | None = None

    @classmethod
    def create(
        cls, path: str | Path, metadata: Mapping[str, Any], shape: tuple[int, int, int], dtype: DType, chunk_size: int
    ) -> Self:
        """Return the store with this name: a new one, or one that was begun and is to be finished.

        Args:
            path: its folder.
            metadata: what its maps are of; JSON values.
            shape: (N, h, w).
            dtype: "uint8" for maps in [0, 1], to 1/510, or "float16", which has signs.
            chunk_size: samples that are written together.

        Raises:
            SightlineError: the folder holds something else, or maps of something else; the message says what differs.
            RunFailedError: it cannot be made.
        """
        with requires_extra("maps", "a store of maps"):
            import zarr
            from zarr.codecs import ZstdCodec

        check_choice(DType, dtype=dtype)
        path = Path(path)
        if (path / "zarr.json").is_file():
            store = cls(path)
            known = {**store.metadata, "shape": list(store._maps.shape), "dtype": str(store._maps.dtype)}
            wanted = {**metadata, "shape": list(shape), "dtype": dtype}
            for name in {**known, **wanted}:
                if known.get(name) != wanted.get(name):
                    raise SightlineError(
                        f"{path} holds other maps: {name} is {known.get(name)!r} there and {wanted.get(name)!r} here; "
                        "name another folder"
                    )
            return store
        if not is_new(path):
            raise SightlineError(f"{path} exists and is not a store of maps; choose another folder")
        with replacing_folder(path) as temporary:
            group = zarr.create_group(temporary, attributes={**metadata, "format": FORMAT})
            group.create_array(
                "maps", shape=shape, chunks=(_together(shape, dtype, chunk_size), *shape[1:]),
                shards=(chunk_size, *shape[1:]), dtype=dtype,
                compressors=ZstdCodec(checksum=True),
            )  # fmt: skip
            group.create_array("finished", shape=shape[:1], chunks=(chunk_size,), dtype="uint8")
        return cls(path)

    def __len__(self) -> int:
        return int(self._maps.shape[0])

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the maps."""
        return int(self._maps.shape[1]), int(self._maps.shape[2])

    @property
    def chunk_size(self) -> int:
        """How many samples are written together."""
        return int(self._finished.chunks[0])

    @property
    def finished(self) -> Tensor:
        """(N,) bool, which samples have their map."""
        return self._states() > 0

    def check_finished(self) -> None:
        """Reject a store that was begun and not finished.

        Raises:
            SightlineError: says how many maps are missing.
        """
        if missing := int((~self.finished).sum()):
            raise SightlineError(
                f"{self.path} lacks {missing} of {len(self)} maps; give the command that made it again"
            )

    def keep_in_memory(self) -> None:
        """Read all maps of a finished store now, in the type in which they are stored, and serve `read` from them.

        Raises:
            SightlineError: the store is not finished, or a file of it is damaged or missing.
        """
        self.check_finished()
        self._kept = self._stored(torch.arange(len(self)))

    def read(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return the maps (n, h, w) of these samples in float32: in [0, 1], or unscaled if they are stored as float16.

        Raises:
            SightlineError: an index is outside the data set, or its map is not finished.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64).cpu()
        if wanted.numel() and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise SightlineError(
                f"indices range over {int(wanted.min())} .. {int(wanted.max())}; there are {len(self)} maps"
            )
        if not self._known[wanted].all():
            self._known = self._states()  # another process may have written since
        if len(absent := wanted[self._known[wanted] == 0]):
            raise SightlineError(
                f"{self.path} has no map yet of the samples {absent.tolist()[:10]}; write the rest first"
            )
        maps = self._stored(wanted) if self._kept is None else self._kept[wanted]
        return maps.float() / 255 if maps.dtype == torch.uint8 else maps.float()

    def _stored(self, wanted: Tensor) -> Tensor:
        """Return the finished maps of these samples in the type in which they are stored."""
        rows = wanted.numpy()
        one = len(rows) == 1  # as in training, where a plain slice takes half the time
        with reading(self.path / "maps", ADVICE):
            maps = torch.from_numpy(self._maps[rows[0] : rows[0] + 1] if one else self._maps.oindex[rows])
        empty = ~(maps != 0).flatten(1).any(1)
        if (self._known[wanted] == SOME)[empty].any():
            self._known = self._states()  # another process may have written other maps
        if len(lost := wanted[empty & (self._known[wanted] == SOME)]):
            raise SightlineError(
                f"cannot read {self.path / 'maps'}: the file of sample {int(lost[0])} is missing; {ADVICE}"
            )
        return maps

    def write(self, start: int, maps: Tensor) -> None:
        """Keep the maps (n, h, w) of the samples from `start` on, and then mark them as finished.

        Raises:
            SightlineError: maps of another size, outside [0, 1] where they are kept as uint8, or with values that float16
                does not have.
            RunFailedError: the disk does not take them; what was finished before is kept.
        """
        values = maps.detach().cpu()
        check_shape(values, "maps", ("n", *self.map_size))
        if self._maps.dtype == "uint8":
            low, high = torch.aminmax(values)
            if not (low >= 0 and high <= 1):
                raise SightlineError(f"maps range over [{low:.3g}, {high:.3g}]; uint8 keeps [0, 1], float16 any")
            values = (values * 255).round().to(torch.uint8)
        else:
            values = values.half()
            if not values.isfinite().all():
                raise SightlineError("maps hold values that float16 cannot: NaN, infinity or beyond 65504")
        stop = start + len(values)
        if not 0 <= start < stop <= len(self):
            raise SightlineError(
                f"start is {start} for {len(values)} maps; {self.path} holds the samples 0 .. {len(self) - 1}"
            )
        self._kept = None
        with writing(self.path):
            self._maps[start:stop] = values.numpy()
            self._finished[start:stop] = (
                torch.where((values != 0).flatten(1).any(1), SOME, ZERO).to(torch.uint8).numpy()
            )

    def _states(self) -> Tensor:
        with reading(self.path / "finished", ADVICE):
            return torch.from_numpy(self._finished[:])


def _together(shape: tuple[int, int, int], dtype: DType, chunk_size: int) -> int:
    """Return how many maps are compressed together: a divisor of `chunk_size`, which Zarr requires of a shard's chunks."""
    most = COMPRESSED // (shape[1] * shape[2] * torch.empty(0, dtype=getattr(torch, dtype)).element_size())
    return max(n for n in range(1, chunk_size + 1) if chunk_size % n == 0 and n <= max(1, most))
