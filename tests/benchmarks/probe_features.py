"""What a probe sees of a clip: a few frames, and in each the patches round the eyes and the mouth.

A probe knows nothing of the renderer but its frames. A regressor, fitted on training scenes whose landmarks are known,
finds the eyes and the mouth; small patches there, the whole head and the whole frame are the pixels that probes read.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline

from videmo_jax.data.synthetic import Scene, render
from videmo_jax.data.synthetic.face import MOUTH_Y
from videmo_jax.data.synthetic.head import Head
from videmo_jax.data.synthetic.motion import motion
from videmo_jax.data.synthetic.render import head_places

SIZE = 112
# As many as a model samples of a clip of 2 seconds, and at the same times.
FRAMES = 4
# Half the height of a head in pixels of a view, in which every person is seen at the same scale.
UNIT = 0.29 * SIZE
LANDMARKS = 4
FRAME_SIZE = 28
# Name -> (half width, half height, shift down) in head units and (columns, rows) of a patch.
EYE = (0.42, 0.36, -0.08), (22, 19)
MOUTH = (0.52, 0.42, 0.06), (24, 20)
HEAD = (1.55, 1.55, 0.1), (28, 28)
FACE = (0.95, 1.0, -0.05), (44, 46)
HAIR = (1.45, 1.45, 0.0), (44, 44)
# Principal components kept of each group of pixels.
COMPONENTS = {"head": 140, "eyes": 200, "mouth": 180, "face": 180, "hair": 120, "frame": 60, "change": 30}


def sample(
    frames: np.ndarray, centres: np.ndarray, half: tuple[float, float], shape: tuple[int, int], fine: int = 1
) -> np.ndarray:
    """Patches [F, rows, columns, 3] round the centres [F, 2], bilinear; `fine` points a side are averaged to one."""
    (columns, rows), size = shape, frames.shape[1]
    x = centres[:, :1] + np.linspace(-half[0], half[0], columns * fine)
    y = centres[:, 1:] + np.linspace(-half[1], half[1], rows * fine)
    x, y = (np.clip(a, 0, size - 1.001) for a in (x, y))
    left, top = x.astype(int), y.astype(int)
    dx, dy = (x - left)[:, None, :, None], (y - top)[:, :, None, None]
    frame = np.arange(len(frames))[:, None, None]
    above, below = ((frame, (top + d)[:, :, None]) for d in (0, 1))
    left, right = left[:, None, :], left[:, None, :] + 1
    upper = frames[(*above, left)] * (1 - dx) + frames[(*above, right)] * dx
    lower = frames[(*below, left)] * (1 - dx) + frames[(*below, right)] * dx
    patch = (upper * (1 - dy) + lower * dy).astype(np.float32)
    if fine == 1:
        return patch
    return patch.reshape(len(frames), rows, fine, columns, fine, 3).mean(axis=(2, 4))


def views(scene: Scene, frames: np.ndarray) -> list[np.ndarray]:
    """Each person's part of the frames, [F, SIZE, SIZE, 3], at one scale; nothing of the latent place is used."""
    if len(scene.people) == 1:
        return [frames]
    half = SIZE / 2 * 0.2 / 0.29
    centres = [np.tile([x * SIZE, 0.46 * SIZE + half * 0.08], (len(frames), 1)) for x in (0.26, 0.74)]
    return [sample(frames, centre, (half, half), (SIZE, SIZE)) for centre in centres]


def landmarks(scene: Scene) -> list[np.ndarray]:
    """[F, LANDMARKS, 2] of each view: eyes, mouth and tip of the nose; the truth for training the finder."""
    t = np.arange(FRAMES) / (FRAMES - 1)
    found = []
    for number, (person, (centre, unit)) in enumerate(zip(scene.people, head_places(scene), strict=True)):
        centre, unit = centre * SIZE, unit * SIZE
        if len(scene.people) == 2:
            zoom = 0.29 / 0.2
            half = SIZE / 2 / zoom
            corner = np.array([(0.26, 0.74)[number] * SIZE - half, 0.46 * SIZE + half * 0.08 - half])
            centre, unit = (centre - corner) * zoom, unit * zoom
        head = Head(person, motion(person, t), np.tile(centre, (FRAMES, 1)), unit)
        x = np.array([[head.eye_place(-1.0)[0], head.eye_place(1.0)[0], 0.0, 0.0]])
        found.append(head.at(x, np.array([[head.eye_y, head.eye_y, MOUTH_Y, 0.25]]), np.array([[0, 0, 0, 0.3]])))
    return found


def small(view: np.ndarray) -> np.ndarray:
    """The view at a quarter of its size, one row a frame, whatever its exposure."""
    blocks = view.reshape(FRAMES, FRAME_SIZE, SIZE // FRAME_SIZE, FRAME_SIZE, SIZE // FRAME_SIZE, 3).mean(axis=(2, 4))
    return (blocks / blocks.mean()).reshape(FRAMES, -1).astype(np.float32)


def contours(patches: np.ndarray) -> np.ndarray:
    """Mean over the frames of the grey levels and of the gradients across and down."""
    grey = patches.mean(axis=-1)
    slopes = [np.abs(np.diff(grey, axis=axis, append=0)).mean(axis=0)[:-1, :-1] for axis in (1, 2)]
    return np.concatenate([grey.mean(axis=0).ravel() / 2, *(slope.ravel() for slope in slopes)])


def edges(view: np.ndarray) -> np.ndarray:
    """Square roots of the mean gradients to the four sides, at a quarter of the size, one row a frame."""
    grey = view.mean(axis=-1, dtype=np.float32)
    grey /= grey.mean()
    across, down = (np.diff(grey, axis=axis, prepend=0) for axis in (2, 1))
    parts = [np.maximum(sign * step, 0) for step in (across, down) for sign in (1, -1)]
    step = SIZE // FRAME_SIZE
    blocks = [part.reshape(len(grey), FRAME_SIZE, step, FRAME_SIZE, step).mean(axis=(2, 4)) for part in parts]
    return np.sqrt(np.stack(blocks, axis=-1)).reshape(len(grey), -1)


class Eyes:
    """What the probes look with: the finder of landmarks and the components of each group of pixels."""

    def __init__(self, seed: int, scenes: Sequence[Scene]) -> None:
        seen = [
            (view.astype(np.uint8), truth)
            for scene in scenes
            for view, truth in zip(views(scene, render(seed, scene, SIZE, FRAMES)), landmarks(scene), strict=True)
        ]
        pixels = np.concatenate([edges(view) for view, _ in seen])
        truth = np.concatenate([truth.reshape(FRAMES, -1) for _, truth in seen])
        self.finder = make_pipeline(
            PCA(250, svd_solver="randomized", random_state=0),
            MLPRegressor(hidden_layer_sizes=(256, 128), alpha=0.1, early_stopping=True, max_iter=60, random_state=0),
        )
        held = len(pixels) // 8
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.finder.fit(pixels[held:], (truth[held:] - SIZE / 2) / UNIT)
        self.error = float(np.abs(self.find(pixels[:held]) - truth[:held]).mean())
        self.bases: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        groups = [self._groups(view) for view, _ in seen]
        for name, count in COMPONENTS.items():
            rows = np.stack([group[name] for group in groups])
            pca = PCA(count, svd_solver="randomized", random_state=0).fit(rows)
            basis = pca.components_ * (3 / np.sqrt(pca.explained_variance_[0]))
            self.bases[name] = pca.mean_.astype(np.float32), basis.T.astype(np.float32)

    def find(self, pixels: np.ndarray) -> np.ndarray:
        """Landmarks [N, 2 * LANDMARKS] in pixels of the view."""
        return self.finder.predict(pixels) * UNIT + SIZE / 2

    def _groups(self, view: np.ndarray) -> dict[str, np.ndarray]:
        shrunk = small(view)
        points = self.find(edges(view)).reshape(FRAMES, LANDMARKS, 2)
        level = float(view.mean())
        view = view.astype(np.float32)

        def patch(centres: np.ndarray, where: tuple, fine: int = 1) -> np.ndarray:
            (wide, high, down), shape = where
            return sample(view, centres + np.array([0, down * UNIT]), (wide * UNIT, high * UNIT), shape, fine) / level

        middle = points.mean(axis=(0, 1))
        eyes = [patch(points[:, side], EYE) for side in (0, 1)]
        change = np.abs(np.diff(shrunk.reshape(FRAMES, FRAME_SIZE, FRAME_SIZE, 3), axis=0)).mean(axis=(0, 3))
        return {
            "points": ((points - middle) / UNIT).ravel(),
            "place": np.concatenate([(middle - SIZE / 2) / UNIT, [np.log(level)]]),
            "head": patch(np.tile(middle, (FRAMES, 1)), HEAD, 2).ravel(),
            "eyes": np.concatenate(eyes).ravel(),
            # What stays, in the mean over the frames, as grey and as edges.
            "face": contours(patch(points.mean(axis=1), FACE)),
            "hair": contours(patch(points.mean(axis=1), HAIR)),
            "mouth": patch(points[:, 2], MOUTH).ravel(),
            "frame": shrunk.reshape(FRAMES, -1).mean(axis=0),
            "change": change.ravel(),
        }

    def see(self, seed: int, scene: Scene) -> list[np.ndarray]:
        """Features of each person in the clip of the scene: components of each group, about as large as 1."""
        rows = []
        for view in views(scene, render(seed, scene, SIZE, FRAMES)):
            groups = self._groups(view)
            parts = [groups["points"] * 3, groups["place"]]
            parts += [(groups[name].astype(np.float32) - mean) @ basis for name, (mean, basis) in self.bases.items()]
            rows.append(np.concatenate(parts).astype(np.float32))
        return rows
