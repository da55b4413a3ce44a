// --- the page: tabs, themes, and what the tabs share ---

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NO_WEBGL = "This browser has no WebGL 2, which draws this view. The tab Compare works without it.";
const TOO_OLD = "This browser is too old for this view. The tab Compare works.";
const TABS = ["light", "compare", "space", "about"];

function byId(id) {
  return document.getElementById(id);
}

function number(id) {
  return Number(byId(id).value);
}

function chosen(name) {
  return document.querySelector(`input[name="${name}"]:checked`).value;
}

function radians(angle) {
  return (angle * Math.PI) / 180;
}

function degrees(angle) {
  return (angle * 180) / Math.PI;
}

function setSplit(id, share) {
  byId(id).value = 100 * Math.max(0, Math.min(1, share));
  byId(id).dispatchEvent(new Event("input", { bubbles: true }));
}

// Calls `move` with each event of a pointer that is held on an element, and the element's box.
function dragged(element, move) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    move(event, element.getBoundingClientRect(), true);
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) move(event, element.getBoundingClientRect(), false);
  });
}

// Keys held with these are the browser's: they zoom the page, load it anew, go back.
function isForBrowser(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

// The number beside each slider.
const UNITS = { azimuth: "°", elevation: "°" };

function showValues() {
  for (const input of document.querySelectorAll(".controls input[type=range]")) {
    const value = input.id === "shininess" ? Math.round(2 ** input.value) : Number(input.value);
    const digits = ["azimuth", "elevation"].includes(input.id) ? 0 : 2;
    const text = `${Number(value.toFixed(digits))}${UNITS[input.id] ?? ""}`;
    input.closest("label").querySelector("output").textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  for (const part of document.querySelectorAll("[data-model]")) part.hidden = part.dataset.model !== chosen("model");
  for (const name of ["light", "compare"])
    byId(`${name}-stage`).style.setProperty("--split", `${number(`${name}-split`)}%`);
}

function showFacts({ subtitle, rows, warnings }) {
  byId("subtitle").textContent = subtitle;
  for (const [name, value] of rows) {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, detail.textContent] = [name, value];
    byId("facts").append(term, detail);
  }
  for (const text of warnings) {
    const line = document.createElement("p");
    line.className = "warning";
    line.textContent = text;
    byId("warnings").append(line);
  }
  byId("tab-about").classList.toggle("flagged", warnings.length > 0);
  if (warnings.length) byId("tab-about").setAttribute("aria-label", `About, ${warnings.length} warnings`);
}

function complain(name, text) {
  byId(`${name}-message`).textContent = text;
  byId(`${name}-message`).hidden = false;
  byId(`${name}-stage`).hidden = true;
  byId(`panel-${name}`).classList.add("broken");
}

function reason(error) {
  return typeof DecompressionStream === "undefined" ? TOO_OLD : `${NO_WEBGL} (${error.message})`;
}

class Page {
  constructor(data) {
    this.data = data;
    document.documentElement.style.setProperty("--aspect", String(data.width / data.height));
    showFacts(data.facts);
    document.addEventListener("input", showValues);
    for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
    TABS.forEach((name, k) => {
      byId(`tab-${name}`).addEventListener("click", () => this.show(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step || isForBrowser(event)) return;
        const next = TABS[(k + step + TABS.length) % TABS.length];
        this.show(next);
        byId(`tab-${next}`).focus();
      });
    });
    const theme = document.documentElement.dataset;
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    const follow = () => (theme.theme = system.matches ? "dark" : "light");
    follow();
    system.addEventListener("change", follow);
    byId("theme").addEventListener("click", () => (theme.theme = theme.theme === "dark" ? "light" : "dark"));
  }

  async open() {
    const { pictures, light } = this.data;
    this.photo = loadedImage(pictures[0].src);
    const maps = await normalMaps(light).catch(() => null);
    this.openCompare(maps);
    try {
      if (!maps) throw new Error("no maps");
      this.light = new Light(this.data, showValues);
      this.light.shine();
      // A page inside of another one may begin with another tab.
      this.show(document.documentElement.dataset.start || "light");
      this.light.load(maps, await this.photo);
    } catch (error) {
      complain("light", reason(error));
      this.show("compare");
    }
    showValues();
  }

  openCompare(maps) {
    const { pictures, light, width, height } = this.data;
    const each = (values) => ({ ...maps, values, closed: light.closed });
    const normals = maps ? { "normals-before": each(maps.before), "normals-after": each(maps.after) } : {};
    this.compare = new Compare(pictures.filter(({ name, src }) => src || name in normals), normals, { width, height });
  }

  show(name) {
    for (const tab of TABS) {
      byId(`tab-${tab}`).setAttribute("aria-selected", String(tab === name));
      byId(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
      byId(`panel-${tab}`).hidden = tab !== name;
    }
    if (name === "light") this.light?.show();
    if (name === "space") this.openSpace();
  }

  async openSpace() {
    if (this.space) return;
    this.space = true;
    const stage = byId("space-stage");
    stage.classList.add("waits");
    try {
      this.space = await Space.open(this.data, await this.photo);
    } catch (error) {
      complain("space", reason(error));
    }
    stage.classList.remove("waits");
  }
}

const page = new Page(JSON.parse(byId("redepth-data").textContent));
page.open().finally(() => {
  document.documentElement.dataset.ready = "yes";
});
// For scripts that check the picture: its pixels at any size, under the settings of the page or others.
window.redepthView = {
  settings: () => page.light.settings(),
  pixels(changes, width, height) {
    const values = page.light.shading.pixels({ ...page.light.settings(), ...changes }, width, height);
    page.light.show();
    return values;
  },
};
