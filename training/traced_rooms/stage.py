"""The stage of a path-traced room: primitives, materials, lights and the camera, as Mitsuba takes them.

World: metres, y up, the camera looks towards +z; right in the picture is -x. All places are in the axes of
the innermost `Stage.at`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Vector = Sequence[float]


class Stage:
    """What is in a room; `scene` gives it to Mitsuba.

    Args:
        mi: Mitsuba, with a variant set.
        seed: of all that the layout draws.
    """

    def __init__(self, mi: Any, seed: int) -> None:
        self.mi = mi
        self.rng = np.random.default_rng(seed)
        self.parts: dict[str, Any] = {}
        self.frame = np.eye(4)
        self.eye, self.target, self.field_of_view = np.zeros(3), np.array([0.0, 0, 1]), 60.0

    # --- random numbers ---------------------------------------------------------------------------

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def colour(self, low: float = 0.15, high: float = 0.75, chroma: float = 0.6) -> Array:
        """Draw a linear colour; ``chroma`` is how far the weakest channel may lie below the strongest."""
        return self.uniform(low, high) * (1 - chroma * self.rng.uniform(0, 1, 3))

    def brown(self) -> Array:
        """Draw the colour of a wood."""
        return self.uniform(0.12, 0.55) * np.array([1.0, self.uniform(0.55, 0.75), self.uniform(0.25, 0.5)])

    # --- places and materials -----------------------------------------------------------------------

    @contextmanager
    def at(self, x: float, y: float, z: float, yaw: float = 0.0, tilt: float = 0.0) -> Iterator[None]:
        """Place what follows at a point, turned by ``yaw`` degrees about y after ``tilt`` about z."""
        before = self.frame
        t = self.mi.ScalarTransform4f
        local = t().translate([x, y, z]).rotate([0, 1, 0], yaw).rotate([0, 0, 1], tilt)
        self.frame = before @ np.array(local.matrix)
        yield
        self.frame = before

    def material(
        self,
        colour: Array,
        roughness: float = 0.6,
        *,
        metallic: float = 0.0,
        repeat: float | tuple[float, float] = 1.0,
    ) -> Any:
        """Return a two-sided principled material of one colour (3,) or a bitmap (H, W, 3), linear."""
        base: dict[str, Any] = {"type": "rgb", "value": colour.tolist()} if colour.ndim == 1 else {}
        if colour.ndim == 3:
            across, down = repeat if isinstance(repeat, tuple) else (repeat, repeat)
            base = {
                "type": "bitmap",
                "bitmap": self.mi.Bitmap(np.ascontiguousarray(colour, np.float32)),
                "raw": True,
                "to_uv": self.mi.ScalarTransform3f().scale([across, down]),
            }
        surface = {"type": "principled", "base_color": base, "roughness": roughness, "metallic": metallic}
        return self.mi.load_dict({"type": "twosided", "bsdf": surface})

    def paint(self, low: float = 0.15, high: float = 0.75, chroma: float = 0.6, gloss: float = 0.5) -> Any:
        """Return a material of a random colour."""
        return self.material(self.colour(low, high, chroma), self.uniform(0.9 - gloss, 0.9))

    def metal(self) -> Any:
        """Return brushed metal."""
        return self.material(self.colour(0.5, 0.8, 0.25), self.uniform(0.25, 0.45), metallic=1.0)

    # --- primitives ---------------------------------------------------------------------------------

    def add(self, part: Any) -> None:
        """Add a shape or an emitter, an object of Mitsuba or its description."""
        self.parts[f"part{len(self.parts):04}"] = part

    def _placed(self, *steps: tuple[str, tuple[Any, ...]]) -> Any:
        transform = self.mi.ScalarTransform4f(self.frame)
        for name, arguments in steps:
            transform = getattr(transform, name)(*arguments)
        return transform

    def box(self, centre: Vector, half: Vector, material: Any, yaw: float = 0.0, tilt: float = 0.0) -> None:
        """Add a box; ``tilt`` turns it about z, then ``yaw`` about y, in degrees."""
        steps = ("translate", (list(centre),)), ("rotate", ([0, 1, 0], yaw)), ("rotate", ([0, 0, 1], tilt))
        place = self._placed(*steps, ("scale", (list(half),)))
        self.add({"type": "cube", "to_world": place, "bsdf": material})

    def ball(self, centre: Vector, radius: float, material: Any) -> None:
        """Add a ball."""
        shape = {"type": "sphere", "center": list(centre), "radius": radius}
        self.add(shape | {"to_world": self._placed(), "bsdf": material})

    def rod(self, start: Vector, end: Vector, radius: float, material: Any) -> None:
        """Add a cylinder between two points, with its ends closed."""
        shape = {"type": "cylinder", "p0": list(start), "p1": list(end), "radius": radius}
        self.add(shape | {"to_world": self._placed(), "bsdf": material})
        up = [1.0, 0, 0] if abs(end[1] - start[1]) > abs(end[0] - start[0]) else [0, 1.0, 0]
        for here, there in ((start, end), (end, start)):
            out = (2 * np.asarray(here) - np.asarray(there)).tolist()
            towards = self.mi.ScalarTransform4f().look_at(origin=list(here), target=out, up=up)
            cap = self._placed() @ towards @ self.mi.ScalarTransform4f().scale(radius)
            self.add({"type": "disk", "to_world": cap, "bsdf": material})

    def mesh(self, points: ArrayLike, faces: ArrayLike, material: Any, smooth: bool = True) -> None:
        """Add triangles (F, 3) between points (V, 3)."""
        local, corners = np.asarray(points, dtype=float), np.asarray(faces)
        world = local @ self.frame[:3, :3].T + self.frame[:3, 3]
        properties = self.mi.Properties()
        properties["bsdf"] = material
        mesh = self.mi.Mesh("mesh", len(world), len(corners), has_vertex_normals=smooth, props=properties)
        buffers = self.mi.traverse(mesh)
        buffers["vertex_positions"] = world.ravel().astype(np.float32)
        buffers["faces"] = corners.ravel().astype(np.uint32)
        buffers.update()
        self.add(mesh)

    def sheet(self, points: Array, material: Any, *, smooth: bool = True) -> None:
        """Add a grid of points (A, B, 3) as a surface."""
        a, b = points.shape[:2]
        corner = np.arange(a * b).reshape(a, b)
        p, q, r, s = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
        faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((p, q, r), (q, s, r))])
        self.mesh(points.reshape(-1, 3), faces, material, smooth)

    def lathe(self, profile: Sequence[tuple[float, float]], material: Any, segments: int = 40) -> None:
        """Add the surface that a line of (radius, height) makes when it turns about the y axis."""
        radius, height = np.asarray(profile, dtype=float).T[..., None]
        angle = np.linspace(0, 2 * np.pi, segments + 1)
        around = np.stack([radius * np.cos(angle), height + 0 * angle, radius * np.sin(angle)], axis=-1)
        self.sheet(around, material)

    def turned(self, knots: Sequence[tuple[float, float]], material: Any, segments: int = 40) -> None:
        """Add a vase: `lathe` of a smooth line through the knots."""
        values = np.asarray(knots, dtype=float)
        at = np.linspace(0, len(values) - 1, 8 * len(values))
        steps = np.minimum(at.astype(int), len(values) - 2)
        t = at - steps
        ease = (t * t * (3 - 2 * t))[:, None]
        line = (1 - ease) * values[steps] + ease * values[steps + 1]
        line[:, 1] = np.interp(at, np.arange(len(values)), values[:, 1])
        self.lathe([(r, y) for r, y in line.tolist()], material, segments)

    def pillow(
        self, centre: Vector, half: Vector, material: Any, power: tuple[float, float] = (0.5, 0.5)
    ) -> None:
        """Add a superquadric; powers below 1 make it boxy, 1 an ellipsoid, above 1 pinched."""
        u = np.linspace(-np.pi, np.pi, 49)
        v = np.linspace(-np.pi / 2, np.pi / 2, 25)[:, None]

        def bent(values: Array, exponent: float) -> Array:
            return np.sign(values) * np.abs(values) ** exponent

        ring, up = bent(np.cos(v), power[0]), bent(np.sin(v), power[0])
        unit = [ring * bent(np.cos(u), power[1]), up + 0 * u, ring * bent(np.sin(u), power[1])]
        self.sheet(np.stack(unit, axis=-1) * np.asarray(half) + np.asarray(centre), material)

    def ring(self, centre: Vector, radius: float, tube: float, material: Any, *, arc: float = 360.0) -> None:
        """Add a torus about the local z axis, or the part of it between 0 and ``arc`` degrees."""
        u, v = np.radians(np.linspace(0, arc, 49))[:, None], np.linspace(0, 2 * np.pi, 17)
        out = radius + tube * np.cos(v)
        points = np.stack([out * np.cos(u), out * np.sin(u), tube * np.sin(v) + 0 * u], axis=-1)
        self.sheet(points + np.asarray(centre), material)

    def leaves(self, centres: Array, radius: float, material: Any) -> None:
        """Add a small six-sided leaf at each centre (N, 3), facing any way."""
        count = len(centres)
        normal = self.rng.standard_normal((count, 3)) + np.array([0, 0.8, 0])
        first = np.cross(normal, self.rng.standard_normal((count, 3)))
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(normal / np.linalg.norm(normal, axis=1, keepdims=True), first)
        size = radius * self.rng.uniform(0.6, 1.3, (count, 1))
        angle = np.arange(6) * math.pi / 3
        rim = first[:, None] * np.cos(angle)[:, None] + 0.6 * second[:, None] * np.sin(angle)[:, None]
        points = (centres[:, None] + size[:, None] * rim).reshape(-1, 3)
        fan = np.array([[0, i, i + 1] for i in range(1, 5)])
        self.mesh(points, (6 * np.arange(count)[:, None, None] + fan).reshape(-1, 3), material, smooth=False)

    # --- light and camera ---------------------------------------------------------------------------

    def panel(self, centre: Vector, towards: Vector, half: tuple[float, float], radiance: Vector) -> None:
        """Add a rectangle that shines towards a point: a window's sky, a light in the ceiling."""
        along = np.abs(np.asarray(towards, dtype=float) - np.asarray(centre))
        up = [0, 0, 1.0] if along[1] > max(along[0], along[2]) else [0, 1.0, 0]
        look = self.mi.ScalarTransform4f().look_at(origin=list(centre), target=list(towards), up=up)
        place = self._placed() @ look @ self.mi.ScalarTransform4f().scale([half[0], half[1], 1])
        self.add({"type": "rectangle", "to_world": place, "emitter": _shine(radiance)})

    def bulb(self, centre: Vector, radius: float, radiance: Vector) -> None:
        """Add a ball that shines."""
        shape = {"type": "sphere", "center": list(centre), "radius": radius, "to_world": self._placed()}
        self.add(shape | {"emitter": _shine(radiance)})

    def sky(self, azimuth: float, elevation: float, turbidity: float = 3.0, sun: float = 1.0) -> None:
        """Add a sun and its sky; azimuth 0 is behind the camera's back, 90 to its left, in degrees."""
        a, e = math.radians(azimuth), math.radians(elevation)
        direction = [math.cos(e) * math.sin(a), math.sin(e), -math.cos(e) * math.cos(a)]
        # The sky's own frame has z up.
        upright = self.mi.ScalarTransform4f().rotate([1, 0, 0], -90)
        light = {"type": "sunsky", "turbidity": turbidity, "sun_direction": direction, "sun_scale": sun}
        self.add(light | {"to_world": upright})

    def look(self, eye: Vector, target: Vector) -> None:
        """Place the camera; its field of view is drawn from 45 to 75 degrees."""
        self.eye, self.target = np.asarray(eye, dtype=float), np.asarray(target, dtype=float)
        self.field_of_view = round(self.uniform(45, 75), 2)


def _shine(radiance: Vector) -> dict[str, Any]:
    return {"type": "area", "radiance": {"type": "rgb", "value": list(radiance)}}
