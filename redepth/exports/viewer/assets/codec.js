// --- data of the page: the other side of encoding.py ---

const UNKNOWN = 65535;
const OCTAHEDRON_LEVELS = 2 ** 14 - 1;

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function inflated(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpacked(text, height, width) {
  const planes = await inflated(bytesOf(text), "deflate");
  const count = height * width;
  const codes = new Uint16Array(count);
  for (let row = 0, k = 0; row < height; row++) {
    let sum = 0;
    for (let column = 0; column < width; column++, k++) {
      const folded = (planes[k] << 8) | planes[count + k];
      sum += (folded >>> 1) ^ -(folded & 1);
      codes[k] = sum + (row ? codes[k - width] : 0);
    }
  }
  return codes;
}

// Returns x, y, z and 1 where the normal is known, else zeros.
function normalsOf(first, second) {
  const values = new Float32Array(4 * first.length);
  for (let k = 0; k < first.length; k++) {
    if (first[k] === UNKNOWN) continue;
    let x = (2 * first[k]) / OCTAHEDRON_LEVELS - 1;
    let y = (2 * second[k]) / OCTAHEDRON_LEVELS - 1;
    const z = 1 - Math.abs(x) - Math.abs(y);
    if (z < 0) {
      const [a, b] = [x, y];
      x = (1 - Math.abs(b)) * (a < 0 ? -1 : 1);
      y = (1 - Math.abs(a)) * (b < 0 ? -1 : 1);
    }
    const length = Math.hypot(x, y, z);
    values.set([x / length, y / length, z / length, 1], 4 * k);
  }
  return values;
}

// The normals before and after of the page.
async function normalMaps({ height, width, before, after }) {
  const read = async (texts) => normalsOf(...(await Promise.all(texts.map((text) => unpacked(text, height, width)))));
  return { height, width, before: await read(before), after: await read(after) };
}

function loadedImage(src) {
  const image = new Image();
  image.src = src;
  return image.decode().then(() => image);
}
