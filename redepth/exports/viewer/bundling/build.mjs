// Bundle three.js, and put its licence on top of the file and beside it.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const licence = readFileSync("node_modules/three/LICENSE", "utf8").trim();
const { version } = JSON.parse(readFileSync("node_modules/three/package.json", "utf8"));
await build({
  entryPoints: ["parts.js"],
  outfile: "../assets/three.min.js",
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "redepthThree",
  target: "es2020",
  legalComments: "none",
  banner: { js: `/*! three.js ${version}\n\n${licence}\n*/` },
});
writeFileSync("../assets/three.LICENSE.txt", `three.js ${version}\n\n${licence}\n`);
