"""Shading models: unit normals and light to reflected light, in plain torch.

Normals, lights and view vectors are in one frame: x right, y up, z towards the viewer. Each model returns the
linear light reflected under one white light per entry of L, scaled so that a white Lambertian surface that
faces the light reflects 1 (irradiance pi). `develop` clips it and turns it to sRGB.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redepth.ops import geometry
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.ops.color import linear_to_srgb

FLOOR = 1e-3
"""Least value of a re-lit pixel, linear and sRGB: the power law's derivative is infinite at 0."""

DIELECTRIC_REFLECTANCE = 0.04
"""Reflectance at normal incidence of a surface of refractive index 1.5."""

SPHERICAL_HARMONICS = 9
"""Coefficients up to order 2."""


def normalize(vectors: Tensor, dim: int = -1) -> Tensor:
    """Return unit vectors; a zero vector stays zero."""
    return vectors / torch.linalg.vector_norm(vectors, dim=dim, keepdim=True).clamp(min=1e-8)


def develop(linear: Tensor) -> Tensor:
    """Clip linear light to [1e-3, 1] and return it as sRGB (R^(1/2.2)) in the same range."""
    return linear_to_srgb(linear.clamp(FLOOR, 1.0), FLOOR)


def lambert(normals: Tensor, albedo: Tensor, direction: Tensor) -> Tensor:
    r"""Return the light that a perfectly matte surface reflects, R = a max(n . l, 0).

    Args:
        normals: (B, 3, H, W) unit normals.
        albedo: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.

    Returns:
        (B, L, 3, H, W) linear light >= 0.

    Source: Lambert, "Photometria", 1760.
    """
    return _cosine(normals, direction)[:, :, None] * albedo[:, None]


def phong(
    normals: Tensor,
    albedo: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
    view: Tensor,
) -> Tensor:
    r"""Return the light reflected by the Phong model.

    .. math:: R = k_d \max(n \cdot l, 0) \, a + k_s \max(r \cdot v, 0)^{p} \, [n \cdot l > 0], \qquad
        r = 2 (n \cdot l) n - l

    Args:
        normals: (B, 3, H, W) unit normals.
        albedo: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        diffuse: (B, L) weight k_d >= 0, or (B, L, 3) per colour channel.
        specular: weight k_s >= 0, likewise.
        shininess: (B, L) exponent p > 0.
        view: unit vectors to the camera, `camera.Camera.view`.

    Returns:
        (B, L, 3, H, W) linear light >= 0.

    Source: Phong, "Illumination for computer generated pictures", CACM 1975.
    """
    signed = torch.einsum("bchw,blc->blhw", normals, direction)
    toward = (normals * view).sum(dim=1)[:, None]
    mirrored = 2 * signed * toward - _view_cosine(direction, view)
    highlight = mirrored.clamp(min=0.0) ** _per_light(shininess) * (signed > 0)
    return _composite(signed.clamp(min=0.0), highlight, albedo, diffuse, specular)


def blinn_phong(
    normals: Tensor,
    albedo: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
    view: Tensor | None = None,
) -> Tensor:
    r"""Return the light reflected by the Blinn-Phong model.

    .. math:: R = k_d \max(n \cdot l, 0) \, a + k_s \max(n \cdot h, 0)^{p}, \qquad
        h = \frac{l + v}{\lVert l + v \rVert}

    Args:
        normals: (B, 3, H, W) unit normals.
        albedo: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        diffuse: (B, L) weight k_d >= 0, or (B, L, 3) per colour channel.
        specular: weight k_s >= 0, likewise.
        shininess: (B, L) exponent p > 0.
        view: unit vectors to the camera, `camera.Camera.view`; default (0, 0, 1), the orthographic one.

    Returns:
        (B, L, 3, H, W) linear light >= 0.

    Source: Blinn, "Models of light reflection", SIGGRAPH 1977; arXiv 2512.17908.
    """
    if view is None:
        view = ORTHOGRAPHIC.view(1, 1, like=normals)
    highlight = _cosine(normals, _half_vectors(direction, view)) ** _per_light(shininess)
    return _composite(_cosine(normals, direction), highlight, albedo, diffuse, specular)


def relight_blinn_phong(
    depth: Tensor,
    image_linear: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
    ambient: float = 0.0,
) -> Tensor:
    r"""Relight a photo: depth to normals, Blinn-Phong, an ambient share of the photo, sRGB.

    The paper's renderer in one call. `redepth.ops.triton.blinn_phong.relight_blinn_phong` computes the same
    in one kernel.

    Args:
        depth: (B, 1, H, W) relative depth of an orthographic camera.
        image_linear: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        diffuse: (B, L, 3) weight k_d >= 0 per colour channel; light colour and exposure are folded in.
        specular: (B, L, 3) weight k_s >= 0, likewise.
        shininess: (B, L) exponent p > 0.
        ambient: share of the photo that is added unshaded.

    Returns:
        (B, L, 3, H, W) sRGB in [1e-3, 1].
    """
    normals = geometry.normals_from_depth(depth)
    linear = blinn_phong(normals, image_linear, direction, diffuse, specular, shininess)
    return develop(linear + ambient * image_linear[:, None])


def ggx(
    normals: Tensor,
    albedo: Tensor,
    direction: Tensor,
    roughness: Tensor,
    metalness: Tensor,
    view: Tensor,
) -> Tensor:
    r"""Return the light reflected by the Cook-Torrance model with the GGX distribution.

    .. math::
        R = \big[(1 - F)(1 - m) \, a + \pi D V F\big] \max(n \cdot l, 0), \qquad \alpha = \rho^2

        D = \frac{\alpha^2}{\pi ((n \cdot h)^2 (\alpha^2 - 1) + 1)^2}, \qquad
        F = F_0 + (1 - F_0)(1 - v \cdot h)^5, \qquad F_0 = 0.04 (1 - m) + m a

        V = \frac{1/2}{(n \cdot l) \sqrt{(n \cdot v)^2 (1 - \alpha^2) + \alpha^2}
            + (n \cdot v) \sqrt{(n \cdot l)^2 (1 - \alpha^2) + \alpha^2}}

    Args:
        normals: (B, 3, H, W) unit normals.
        albedo: (B or 1, 3, H, W) linear base colours a in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        roughness: (B, L) rho in (0, 1].
        metalness: (B, L) m in [0, 1]; a metal has no matte part and tints its highlight.
        view: unit vectors to the camera, `camera.Camera.view`.

    Returns:
        (B, L, 3, H, W) linear light >= 0.

    Source: Walter et al., "Microfacet models for refraction", EGSR 2007 (D); Heitz, "Understanding the
    masking-shadowing function", JCGT 2014 (V, height-correlated Smith); Schlick, 1994 (F).
    """
    half = _half_vectors(direction, view)
    n_l, n_h = _cosine(normals, direction), _cosine(normals, half)
    n_v = (normals * view).sum(dim=1)[:, None].clamp(min=1e-4)
    squared = _per_light(roughness) ** 4
    distribution = squared / (n_h**2 * (squared - 1) + 1) ** 2
    masking = (
        n_l * (n_v**2 * (1 - squared) + squared).sqrt() + n_v * (n_l**2 * (1 - squared) + squared).sqrt()
    )
    metal = _weight(metalness)
    base = DIELECTRIC_REFLECTANCE * (1 - metal) + metal * albedo[:, None]
    away = (1 - _view_cosine(half, view)).clamp(0.0, 1.0)[:, :, None]
    fresnel = base + (1 - base) * away**5
    matte = (1 - fresnel) * (1 - metal) * albedo[:, None]
    return (matte + (distribution * 0.5 / masking.clamp(min=1e-6))[:, :, None] * fresnel) * n_l[:, :, None]


def oren_nayar(normals: Tensor, albedo: Tensor, direction: Tensor, roughness: Tensor, view: Tensor) -> Tensor:
    r"""Return the light that a rough matte surface reflects, by the Oren-Nayar qualitative model.

    .. math::
        R = a \max(n \cdot l, 0) \big(A + B \max(0, \cos \Delta\phi) \sin\alpha \tan\beta\big), \qquad
        A = 1 - \frac{\sigma^2}{2 (\sigma^2 + 0.33)}, \quad B = \frac{0.45 \sigma^2}{\sigma^2 + 0.09}

    where alpha and beta are the larger and the smaller of the angles to light and camera; without angles,
    cos(dphi) sin(alpha) tan(beta) = (l.v - (n.l)(n.v)) / max(n.l, n.v).

    Args:
        normals: (B, 3, H, W) unit normals.
        albedo: (B or 1, 3, H, W) linear colours in [0, 1].
        direction: (B, L, 3) unit vectors towards the light.
        roughness: (B, L) sigma >= 0, standard deviation of the facets' slopes in radians; 0 is Lambert.
        view: unit vectors to the camera, `camera.Camera.view`.

    Returns:
        (B, L, 3, H, W) linear light >= 0.

    Source: Oren and Nayar, "Generalization of Lambert's reflectance model", SIGGRAPH 1994, eq. 30.
    """
    n_l = _cosine(normals, direction)
    n_v = (normals * view).sum(dim=1)[:, None].clamp(min=0.0)
    retro = (_view_cosine(direction, view) - n_l * n_v).clamp(min=0.0)
    retro = retro / torch.maximum(n_l, n_v).clamp(min=1e-4)
    variance = _per_light(roughness) ** 2
    level = 1 - 0.5 * variance / (variance + 0.33)
    brightening = 0.45 * variance / (variance + 0.09)
    return (n_l * (level + brightening * retro))[:, :, None] * albedo[:, None]


def project_lights(direction: Tensor, radiance: Tensor) -> Tensor:
    r"""Return the spherical-harmonics coefficients of an environment made of distant lights.

    .. math:: L_{lm} = \pi \sum_j w_j Y_{lm}(\omega_j)

    The factor pi makes a light of weight 1 the same as the other models' white light.

    Args:
        direction: (..., M, 3) unit vectors towards the lights.
        radiance: (..., M, 3) linear colours w.

    Returns:
        (..., 9, 3), in the order (0,0), (1,-1), (1,0), (1,1), (2,-2), (2,-1), (2,0), (2,1), (2,2).
    """
    x, y, z = direction.unbind(-1)
    basis = torch.stack(
        [
            torch.full_like(x, 0.5 * math.sqrt(1 / math.pi)),
            math.sqrt(0.75 / math.pi) * y,
            math.sqrt(0.75 / math.pi) * z,
            math.sqrt(0.75 / math.pi) * x,
            math.sqrt(3.75 / math.pi) * x * y,
            math.sqrt(3.75 / math.pi) * y * z,
            math.sqrt(0.3125 / math.pi) * (3 * z**2 - 1),
            math.sqrt(3.75 / math.pi) * x * z,
            math.sqrt(0.9375 / math.pi) * (x**2 - y**2),
        ],
        dim=-2,
    )
    return math.pi * basis @ radiance


def spherical_harmonics(normals: Tensor, albedo: Tensor, coefficients: Tensor) -> Tensor:
    r"""Return the light that a matte surface reflects under a distant environment, R = a E / pi.

    .. math::
        E = c_1 L_{22} (x^2 - y^2) + c_3 L_{20} z^2 + c_4 L_{00} - c_5 L_{20}
            + 2 c_1 (L_{2,-2} xy + L_{21} xz + L_{2,-1} yz) + 2 c_2 (L_{11} x + L_{1,-1} y + L_{10} z)

    with c = (0.429043, 0.511664, 0.743125, 0.886227, 0.247708); a negative E (the order ends at 2) is 0.

    Args:
        normals: (B, 3, H, W) unit normals (x, y, z).
        albedo: (B or 1, 3, H, W) linear colours in [0, 1].
        coefficients: (B, L, 9, 3) of the environment's radiance, `project_lights`.

    Returns:
        (B, L, 3, H, W) linear light >= 0. Normals of zero facing (0, 0, -1), invalid pixels, are lit from
        behind; the renderer masks them.

    Source: Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment maps",
    SIGGRAPH 2001, eq. 13.
    """
    c1, c2, c3, c4, c5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708
    x, y, z = normals.unbind(1)
    terms = torch.stack(
        [
            torch.full_like(x, c4),
            2 * c2 * y,
            2 * c2 * z,
            2 * c2 * x,
            2 * c1 * x * y,
            2 * c1 * y * z,
            c3 * z**2 - c5,
            2 * c1 * x * z,
            c1 * (x**2 - y**2),
        ],
        dim=1,
    )
    irradiance = torch.einsum("bkhw,blkc->blchw", terms, coefficients).clamp(min=0.0)
    return irradiance / math.pi * albedo[:, None]


def _cosine(normals: Tensor, vectors: Tensor) -> Tensor:
    """Return max(n . w, 0), (B, L, H, W), of vectors (B, L, 3) or one per pixel (B, L, 3, H, W)."""
    equation = "bchw,blc->blhw" if vectors.dim() == 3 else "bchw,blchw->blhw"
    return torch.einsum(equation, normals, vectors).clamp(min=0.0)


def _half_vectors(direction: Tensor, view: Tensor) -> Tensor:
    """Unit vectors between light and camera: (B, L, 3), or one per pixel where the view has pixels."""
    half = normalize(direction[..., None, None] + view[:, None], dim=2)
    return half[..., 0, 0] if half.shape[-2:] == (1, 1) else half


def _view_cosine(vectors: Tensor, view: Tensor) -> Tensor:
    """Return w . v, (B, L, H, W) or (B, L, 1, 1), of vectors (B, L, 3) or one per pixel (B, L, 3, H, W)."""
    vectors = vectors[..., None, None] if vectors.dim() == 3 else vectors
    return (vectors * view[:, None]).sum(dim=2)


def _composite(
    cosine: Tensor, highlight: Tensor, albedo: Tensor, diffuse: Tensor, specular: Tensor
) -> Tensor:
    return _weight(diffuse) * cosine[:, :, None] * albedo[:, None] + _weight(specular) * highlight[:, :, None]


def _per_light(values: Tensor) -> Tensor:
    return values[:, :, None, None]


def _weight(values: Tensor) -> Tensor:
    """Shape (B, L) or (B, L, 3) weights for (B, L, 3, H, W)."""
    return values.view(*values.shape[:2], -1, 1, 1)
