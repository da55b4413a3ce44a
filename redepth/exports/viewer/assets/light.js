// --- the tab Light ---

// At the edge of the picture the light has its least height, in degrees; at its centre it is at the camera.
const LOWEST = 10;
// How far from the border a pointer still moves it, in pixels. A finger covers more of the screen than a mouse.
const NEAR_MOUSE = 10;
const NEAR_FINGER = 22;
const START = { azimuth: 135, elevation: 40 };

class Light {
  constructor(data, changed) {
    this.data = data;
    this.stage = byId("light-stage");
    this.canvas = byId("light-canvas");
    this.changed = changed;
    this.azimuth = START.azimuth;
    this.elevation = START.elevation;
    this.shading = new Shading(this.canvas);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.shading.load(this.maps, this.photo, this.data.light);
      this.show();
    });
    this.listen();
  }

  load(maps, photo) {
    this.maps = maps;
    this.photo = photo;
    this.shading.load(this.maps, photo, this.data.light);
    this.ready = true;
    this.show();
  }

  settings() {
    const specular = number("specular");
    const [azimuth, elevation] = [radians(this.azimuth), radians(this.elevation)];
    const flat = Math.cos(elevation);
    return {
      model: chosen("model"),
      albedo: chosen("albedo"),
      light: [flat * Math.cos(azimuth), flat * Math.sin(azimuth), Math.sin(elevation)],
      split: number("light-split") / 100,
      ambient: number("ambient"),
      diffuse: 1 - specular,
      specular,
      shininess: 2 ** number("shininess"),
      roughness: number("roughness"),
      metalness: number("metalness"),
    };
  }

  show() {
    if (!this.ready || this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => {
      this.waits = false;
      const box = this.stage.getBoundingClientRect();
      if (!box.width) return;
      const scale = Math.min(window.devicePixelRatio || 1, this.data.width / box.width);
      const [width, height] = [box.width, box.height].map((side) => Math.max(1, Math.round(side * scale)));
      this.shading.draw(this.settings(), width, height);
      const [x, y] = this.place(box);
      this.stage.style.setProperty("--lamp-x", `${x}px`);
      this.stage.style.setProperty("--lamp-y", `${y}px`);
      this.stage.dataset.light = `${this.azimuth.toFixed(1)} ${this.elevation.toFixed(1)}`;
    });
  }

  // Where the light is shown, in pixels of the stage.
  place(box) {
    const part = (90 - this.elevation) / (90 - LOWEST);
    const [x, y] = [Math.cos(radians(this.azimuth)), -Math.sin(radians(this.azimuth))];
    const far = part / Math.hypot((2 * x) / box.width, (2 * y) / box.height);
    return [box.width / 2 + far * x, box.height / 2 + far * y];
  }

  // Moves the light to a place of the stage.
  moveTo(x, y, box) {
    const [right, up] = [x - box.width / 2, box.height / 2 - y];
    const part = Math.min(1, Math.hypot((2 * right) / box.width, (2 * up) / box.height));
    if (part > 1e-3) this.azimuth = degrees(Math.atan2(up, right));
    this.elevation = 90 - part * (90 - LOWEST);
    this.shine();
  }

  shine() {
    byId("azimuth").value = this.azimuth;
    byId("elevation").value = this.elevation;
    this.changed();
    this.show();
  }

  listen() {
    const stage = this.stage;
    // Pointers at the border between before and after, or on its grip, move it; all others move the light.
    dragged(stage, (event, box, begun) => {
      const x = event.clientX - box.left;
      if (begun) {
        const border = (number("light-split") / 100) * box.width;
        const near = event.pointerType === "touch" ? NEAR_FINGER : NEAR_MOUSE;
        this.splits = Math.abs(x - border) < near || event.target.closest(".divider") !== null;
        this.stop();
      }
      if (this.splits) setSplit("light-split", x / box.width);
      else this.moveTo(x, event.clientY - box.top, box);
    });
    stage.addEventListener("keydown", (event) => {
      if (isForBrowser(event)) return;
      const step = ARROWS[event.key];
      if (event.key === "Home") this.reset();
      else if (step) {
        const box = stage.getBoundingClientRect();
        const [x, y] = this.place(box);
        const size = (event.shiftKey ? 0.1 : 0.03) * Math.min(box.width, box.height);
        this.stop();
        this.moveTo(x + step[0] * size, y + step[1] * size, box);
      } else return;
      event.preventDefault();
    });
    for (const name of ["azimuth", "elevation"]) {
      byId(name).addEventListener("input", () => {
        this.stop();
        this[name] = number(name);
        this.show();
      });
    }
    byId("light-controls").addEventListener("input", () => this.show());
    byId("light-split").addEventListener("input", () => this.show());
    byId("reset-light").addEventListener("click", () => this.reset());
    byId("orbit-light").addEventListener("click", () => (this.circling ? this.stop() : this.circle()));
    new ResizeObserver(() => this.show()).observe(stage);
  }

  reset() {
    this.stop();
    Object.assign(this, START);
    byId("light-controls").reset();
    setSplit("light-split", 0.5);
    this.shine();
  }

  circle() {
    this.circling = true;
    byId("orbit-light").setAttribute("aria-pressed", "true");
    let last = null;
    const turn = (time) => {
      if (!this.circling) return;
      if (last !== null && this.stage.offsetParent) {
        this.azimuth = ((this.azimuth + 0.06 * (time - last) + 540) % 360) - 180;
        this.shine();
      }
      last = time;
      requestAnimationFrame(turn);
    };
    requestAnimationFrame(turn);
  }

  stop() {
    this.circling = false;
    byId("orbit-light").setAttribute("aria-pressed", "false");
  }
}
