// --- the tab 3D ---

const FIELD = 40;
// The angles of view of a panorama, in degrees: at first, the least and the most.
const PANORAMA = { field: 75, least: 15, most: 120 };

class Space {
  static async open(data, photo) {
    const source = new TextDecoder().decode(await inflated(bytesOf(byId("redepth-three").textContent), "gzip"));
    const script = document.createElement("script");
    // The policy of the page allows this script by its hash. Its value is a global variable.
    script.textContent = source;
    document.head.append(script);
    const space = new Space(data, photo, window.redepthThree);
    await space.load();
    return space;
  }

  constructor(data, photo, three) {
    this.data = data.space;
    this.three = three;
    this.stage = byId("space-stage");
    this.renderer = new three.WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
    this.stage.append(this.renderer.domElement);
    this.scene = new three.Scene();
    this.camera = new three.PerspectiveCamera(FIELD, 1, 0.001, 1000);
    this.lamp = new three.DirectionalLight(0xffffff, 2.5);
    this.camera.add(this.lamp, this.lamp.target);
    this.lamp.position.set(-1, 1, 0.2);
    this.lamp.target.position.set(0, 0, -1);
    this.scene.add(this.camera, new three.HemisphereLight(0xffffff, 0x777777, 0.5));
    this.controls = new three.OrbitControls(this.camera, this.renderer.domElement);
    this.controls.addEventListener("change", () => this.show());
    const texture = new three.Texture(photo);
    texture.colorSpace = three.SRGBColorSpace;
    texture.anisotropy = 4;
    // The last column of a closed panorama lies beyond the right edge: it is the first one.
    texture.wrapS = three.RepeatWrapping;
    texture.needsUpdate = true;
    const side = three.DoubleSide;
    this.materials = {
      photo: new three.MeshBasicMaterial({ map: texture, side }),
      clay: new three.MeshLambertMaterial({ color: 0xb9b4ac, side }),
      points: new three.PointsMaterial({ map: null, vertexColors: true, sizeAttenuation: false }),
    };
    this.photo = photo;
    this.listen();
  }

  async load() {
    this.surfaces = {};
    for (const name of ["before", "after"]) this.surfaces[name] = await this.surface(this.data[name]);
    this.resize();
    this.reset();
    this.choose();
  }

  // The points of redepth.exports.surface: x right, y up, the camera looks along -z.
  point(u, v, z) {
    if (this.data.camera === "pinhole") return [z * u, z * v, -z];
    if (this.data.camera === "orthographic") return [u, v, -z];
    return [z * Math.cos(v) * Math.sin(u), z * Math.sin(v), -z * Math.cos(v) * Math.cos(u)];
  }

  async surface({ codes, offset, step, cells }) {
    const { three } = this;
    const { u, v, s, t } = this.data;
    const [rows, columns] = [v.length, u.length];
    const depth = await unpacked(codes, rows, columns);
    const whole = await unpacked(cells, rows - 1, columns - 1);
    const positions = new Float32Array(3 * rows * columns);
    const places = new Float32Array(2 * rows * columns);
    const known = [];
    for (let i = 0, k = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++, k++) {
        places.set([s[j], t[i]], 2 * k);
        if (depth[k] === UNKNOWN) continue;
        positions.set(this.point(u[j], v[i], Math.exp(offset + step * depth[k])), 3 * k);
        known.push(k);
      }
    }
    const faces = [];
    for (let i = 0, cell = 0; i < rows - 1; i++) {
      for (let j = 0; j < columns - 1; j++, cell++) {
        if (!whole[cell]) continue;
        const [a, c] = [i * columns + j, i * columns + j + 1];
        const [b, d] = [a + columns, c + columns];
        // Anticlockwise for the camera.
        faces.push(a, b, c, d, c, b);
      }
    }
    const position = new three.BufferAttribute(positions, 3);
    const mesh = new three.BufferGeometry();
    mesh.setAttribute("position", position);
    mesh.setAttribute("uv", new three.BufferAttribute(places, 2));
    mesh.setIndex(new three.BufferAttribute(Uint32Array.from(faces), 1));
    mesh.computeVertexNormals();
    const points = new three.BufferGeometry();
    points.setAttribute("position", position);
    points.setAttribute("color", new three.BufferAttribute(this.colours(places), 3, true));
    points.setIndex(new three.BufferAttribute(Uint32Array.from(known), 1));
    // Unused vertices lie at the origin: they must not count in the bounds.
    const used = known.map((k) => positions.subarray(3 * k, 3 * k + 3));
    return { mesh, points, used, faces: faces.length / 3, vertices: known.length };
  }

  // The linear colours of the photo at places in it, as bytes of sRGB would be lighter.
  colours(places) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.photo.naturalWidth, this.photo.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.photo, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    const linear = new this.three.Color();
    const found = new Uint16Array((places.length / 2) * 3);
    for (let k = 0; k < places.length / 2; k++) {
      const column = Math.min(width - 1, Math.floor((places[2 * k] % 1) * width));
      const row = Math.min(height - 1, Math.floor((1 - places[2 * k + 1]) * height));
      const at = 4 * (row * width + column);
      linear.setRGB(data[at] / 255, data[at + 1] / 255, data[at + 2] / 255, this.three.SRGBColorSpace);
      found.set([linear.r, linear.g, linear.b].map((value) => Math.round(value * 65535)), 3 * k);
    }
    return found;
  }

  listen() {
    for (const name of ["surface", "shape", "paint"])
      for (const input of document.getElementsByName(name)) input.addEventListener("change", () => this.choose());
    byId("point-size").addEventListener("input", () => this.choose());
    byId("reset-space").addEventListener("click", () => this.reset());
    this.stage.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.stage);
  }

  // Arrows turn the surface as if it were dragged that way.
  key(event) {
    if (isForBrowser(event)) return;
    const step = ARROWS[event.key];
    const zoom = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 }[event.key];
    const angle = 0.08 * this.pace();
    if (step) this.turn(-angle * step[0], angle * step[1]);
    else if (zoom) this.camera.position.sub(this.controls.target).multiplyScalar(zoom).add(this.controls.target);
    else if (event.key === "r" || event.key === "R" || event.key === "Home") return this.reset();
    else return;
    event.preventDefault();
    this.controls.update();
    this.show();
  }

  // How fast the camera turns. In a panorama it looks outwards, so that it turns the other way to move the
  // surface the same way; and the closer it looks, the slower.
  pace() {
    return this.data.camera === "spherical" ? -this.camera.fov / PANORAMA.field : 1;
  }

  // A panorama is zoomed by the angle of view, for the camera stays in its middle. The controls change the
  // camera's tiny distance to there, by wheel, fingers and keys: the angle follows it.
  widen() {
    if (this.data.camera !== "spherical") return;
    const { camera, controls } = this;
    camera.fov = (PANORAMA.field * camera.position.distanceTo(controls.target)) / this.radius;
    camera.updateProjectionMatrix();
    controls.rotateSpeed = 0.4 * this.pace();
  }

  // Turns the camera about the point that it looks at, by angles to the right and up.
  turn(right, up) {
    const { controls, camera, three } = this;
    const arm = camera.position.clone().sub(controls.target);
    const radius = arm.length();
    const azimuth = Math.atan2(arm.x, arm.z) + right;
    const elevation = Math.asin(arm.y / radius) + up;
    const bounded = Math.max(-1.5, Math.min(1.5, elevation));
    const direction = new three.Vector3(
      Math.cos(bounded) * Math.sin(azimuth), Math.sin(bounded), Math.cos(bounded) * Math.cos(azimuth));
    camera.position.copy(controls.target).addScaledVector(direction, radius);
  }

  choose() {
    if (!this.surfaces) return;
    const { three, materials } = this;
    const surface = this.surfaces[chosen("surface")];
    if (this.shown) this.scene.remove(this.shown);
    materials.points.size = number("point-size");
    const asPoints = chosen("shape") === "points";
    for (const part of document.querySelectorAll("[data-shape]")) part.hidden = part.dataset.shape !== chosen("shape");
    this.shown = asPoints
      ? new three.Points(surface.points, materials.points)
      : new three.Mesh(surface.mesh, materials[chosen("paint")]);
    this.scene.add(this.shown);
    const count = asPoints ? surface.vertices : surface.faces;
    const unit = this.data.unit === "metres" ? "in metres" : "of unknown scale";
    const empty = "Nothing to show: no depth is known, or it jumps everywhere.";
    byId("space-note").textContent = !count ? empty :
      `${count.toLocaleString("en")} ${asPoints ? "points" : "triangles"}, ${unit}, cut where depth jumps. ` +
      `Camera: ${this.data.camera}.`;
    this.show();
  }

  // The view of the photo's camera; of an orthographic one, aslant from above.
  reset() {
    const { camera, controls } = this;
    const kind = this.data.camera;
    const [low, high, middle] = bounds(this.surfaces.after.used);
    camera.up.set(0, 1, 0);
    if (kind === "spherical") {
      this.radius = 1e-3 * middle;
      controls.minDistance = (this.radius * PANORAMA.least) / PANORAMA.field;
      controls.maxDistance = (this.radius * PANORAMA.most) / PANORAMA.field;
      camera.position.set(0, 0, this.radius);
      controls.target.set(0, 0, 0);
    } else if (kind === "pinhole") {
      camera.position.set(0, 0, 0);
      controls.target.set(0, 0, -middle);
      this.fit(...this.data.fov.slice().reverse());
    } else {
      const centre = low.map((value, k) => (value + high[k]) / 2);
      const [wide, high_, deep] = low.map((value, k) => high[k] - value);
      this.fit(FIELD);
      const across = Math.max(high_, wide / camera.aspect);
      const away = (1.2 * across) / 2 / Math.tan(radians(camera.fov) / 2);
      controls.target.set(...centre);
      camera.position.set(centre[0], centre[1], high[2] + away);
      this.reach = away + deep;
      // Aslant: from the front, a surface seen by parallel rays is the photo.
      this.turn(0.35, 0.3);
    }
    const reach = kind === "orthographic" ? this.reach : Math.max(...low.map(Math.abs), ...high.map(Math.abs));
    camera.near = reach / 2000;
    camera.far = reach * 20;
    camera.updateProjectionMatrix();
    controls.update();
    this.show();
  }

  // Sets the vertical field of view, so that a horizontal one, if there is one, is inside too.
  fit(vertical, horizontal = 0) {
    const aspect = this.camera.aspect;
    const across = degrees(2 * Math.atan(Math.tan(radians(Math.min(horizontal, 170)) / 2) / aspect));
    this.camera.fov = Math.min(150, Math.max(vertical, across));
    this.camera.updateProjectionMatrix();
  }

  resize() {
    const box = this.stage.getBoundingClientRect();
    if (!box.width) return;
    this.renderer.setSize(box.width, box.height, false);
    this.camera.aspect = box.width / box.height;
    this.camera.updateProjectionMatrix();
    this.show();
  }

  show() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => {
      this.waits = false;
      this.widen();
      this.renderer.render(this.scene, this.camera);
      this.stage.dataset.drawn = String(Number(this.stage.dataset.drawn || 0) + 1);
    });
  }
}

// The smallest and the largest coordinates of points, and their median distance along the camera's axis.
function bounds(points) {
  if (!points.length) return [[-1, -1, -2], [1, 1, -1], 1.5];
  const low = [0, 1, 2].map((k) => points.reduce((least, point) => Math.min(least, point[k]), Infinity));
  const high = [0, 1, 2].map((k) => points.reduce((most, point) => Math.max(most, point[k]), -Infinity));
  const distances = points.map((point) => Math.abs(point[2])).sort((a, b) => a - b);
  return [low, high, distances[Math.floor(distances.length / 2)]];
}
