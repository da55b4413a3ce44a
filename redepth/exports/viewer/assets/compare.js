// --- the tab Compare ---

const PAIRS = [
  ["Depth before | after", "initial", "refined"],
  ["Photo | depth after", "photo", "refined"],
  ["Normals before | after", "normals-before", "normals-after"],
  ["Photo | normals after", "photo", "normals-after"],
  ["Depth | uncertainty", "refined", "uncertainty"],
];

// The colours of normals, (n + 1) / 2, on a canvas of the size of the photo.
function drawNormals(canvas, { width, height, values, closed }, size) {
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const image = new ImageData(width, height);
  for (let k = 0; k < image.data.length; k += 4) {
    const known = values[k + 3];
    for (let c = 0; c < 3; c++) image.data[k + c] = known ? 127.5 * (values[k + c] + 1) : 160;
    image.data[k + 3] = 255;
  }
  small.getContext("2d").putImageData(image, 0, 0);
  [canvas.width, canvas.height] = [size.width, size.height];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, size.width, size.height);
  // Over it once more so that the centres of the corners agree, as in all other maps.
  if (!closed && width > 1 && height > 1)
    context.drawImage(small, 0.5, 0.5, width - 1, height - 1, 0.5, 0.5, size.width - 1, size.height - 1);
}

class Compare {
  // `maps`: the normals before and after by the name of their picture; `size`: of the photo.
  constructor(pictures, maps, size) {
    this.maps = maps;
    this.size = size;
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
      this.fill(byId(`compare-${side}`), chosenPictures[k]);
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

  fill(pane, { name, label, src }) {
    const [image, canvas] = pane.children;
    image.hidden = !src;
    canvas.hidden = Boolean(src);
    if (src) {
      image.src = src;
      image.alt = label;
    } else {
      drawNormals(canvas, this.maps[name], this.size);
      canvas.setAttribute("aria-label", label);
    }
  }
}
