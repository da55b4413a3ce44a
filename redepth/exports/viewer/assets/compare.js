// --- the tab Compare ---

const PAIRS = [
  ["Depth before | after", "initial", "refined"],
  ["Photo | depth after", "photo", "refined"],
  ["Normals before | after", "normals-before", "normals-after"],
  ["Photo | normals after", "photo", "normals-after"],
  ["Depth | uncertainty", "refined", "uncertainty"],
];

class Compare {
  constructor(pictures) {
    this.pictures = new Map(pictures.map((picture) => [picture.name, picture]));
    this.stage = byId("compare-stage");
    for (const side of ["left", "right"]) {
      for (const { name, label } of pictures) byId(side).append(new Option(label, name));
      byId(side).addEventListener("change", () => this.show());
    }
    const pairs = PAIRS.filter(([, ...names]) => names.every((name) => this.pictures.has(name)));
    for (const [label, ...pair] of pairs) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.dataset.pair = pair.join(" ");
      button.addEventListener("click", () => this.choose(pair));
      byId("pairs").append(button);
    }
    dragged(this.stage, (event, box) => setSplit("compare-split", (event.clientX - box.left) / box.width));
    this.choose(pairs[0].slice(1));
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
    const notes = [...new Set(chosenPictures.map(({ note }) => note))];
    byId("compare-note").replaceChildren(
      ...notes.map((note) => {
        const line = document.createElement("p");
        const labels = new Set(chosenPictures.filter((picture) => picture.note === note).map(({ label }) => label));
        line.textContent = `${[...labels].join(", ")}: ${note}.`;
        return line;
      }),
    );
  }
}
