// --- the tab Compare ---

const PAIRS = [
  ["initial", "refined"],
  ["photo", "refined"],
  ["normals-before", "normals-after"],
  ["refined", "uncertainty"],
];

class Compare {
  constructor(pictures) {
    this.pictures = new Map(pictures.map((picture) => [picture.name, picture]));
    this.stage = byId("compare-stage");
    for (const side of ["left", "right"]) {
      for (const { name, label } of pictures) byId(side).append(new Option(label, name));
      byId(side).addEventListener("change", () => this.show());
    }
    const pairs = PAIRS.filter((pair) => pair.every((name) => this.pictures.has(name)));
    for (const pair of pairs) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = pair.map((name) => this.pictures.get(name).label).join(" | ");
      button.dataset.pair = pair.join(" ");
      button.addEventListener("click", () => this.choose(pair));
      byId("pairs").append(button);
    }
    dragged(this.stage, (event, box) => setSplit("compare-split", (event.clientX - box.left) / box.width));
    this.choose(pairs[0]);
  }

  choose(pair) {
    [byId("left").value, byId("right").value] = pair;
    this.show();
  }

  show() {
    const names = [byId("left").value, byId("right").value];
    const chosenPictures = names.map((name) => this.pictures.get(name));
    ["left", "right"].forEach((side, k) => {
      const image = byId(`compare-${side}`);
      image.src = chosenPictures[k].src;
      image.alt = chosenPictures[k].label;
      this.stage.querySelector(`.tag.${side}`).textContent = chosenPictures[k].label;
    });
    for (const button of byId("pairs").children)
      button.setAttribute("aria-pressed", String(button.dataset.pair === names.join(" ")));
    const notes = new Set(chosenPictures.map(({ label, note }) => `${label}: ${note}.`));
    byId("compare-note").textContent = [...notes].join(" ");
  }
}
