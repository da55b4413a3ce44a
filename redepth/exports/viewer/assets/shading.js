// --- the formulas of redepth.ops.shading, on the GPU ---

const VERTEX_SHADER = `#version 300 es
void main() {
  // One triangle that covers the picture.
  vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;

uniform sampler2D beforeMap, afterMap, photo;
uniform vec2 size;
uniform float split;
uniform bool closed, pinhole, useGgx, grey;
uniform vec4 intrinsics;
uniform vec3 light;
uniform float ambient, diffuse, specular, shininess, roughness, metalness;
out vec4 colour;

const float FLOOR = 1e-3;
const float GAMMA = 2.2;
const float DIELECTRIC = 0.04;
const float GREY = 0.5;

vec3 unit(vec3 v) { return v / max(length(v), 1e-8); }

vec4 texel(sampler2D map, ivec2 at, ivec2 count) {
  at.x = closed ? (at.x + count.x) % count.x : clamp(at.x, 0, count.x - 1);
  return texelFetch(map, ivec2(at.x, clamp(at.y, 0, count.y - 1)), 0);
}

// The unit normal at a place of the picture, from its top left corner in pixels; w is 0 where it is unknown.
vec4 normalAt(sampler2D map, vec2 place) {
  ivec2 count = textureSize(map, 0);
  // Corners are aligned, as for all maps; those of a closed panorama are resized across its edge.
  vec2 at = closed ? place * vec2(count) / size - 0.5
    : (place - 0.5) * vec2(count - 1) / max(size - 1.0, vec2(1.0));
  vec2 part = fract(at);
  ivec2 low = ivec2(floor(at));
  vec4 sum = vec4(0.0);
  for (int k = 0; k < 4; k++) {
    ivec2 step = ivec2(k & 1, k >> 1);
    vec2 weight = mix(1.0 - part, part, vec2(step));
    sum += weight.x * weight.y * texel(map, low + step, count);
  }
  // The nearest pixel is known if most of the weight is.
  return vec4(unit(sum.xyz), sum.w < 0.5 ? 0.0 : 1.0);
}

vec3 viewAt(vec2 place) {
  if (!pinhole) return vec3(0.0, 0.0, 1.0);
  vec2 ray = (place / size - intrinsics.zw) / intrinsics.xy;
  return normalize(vec3(-ray.x, ray.y, 1.0));
}

vec3 blinnPhong(vec3 n, vec3 v, vec3 albedo) {
  vec3 h = unit(light + v);
  float highlight = max(dot(n, h), 0.0);
  highlight = highlight > 0.0 ? pow(highlight, shininess) : 0.0;
  return diffuse * max(dot(n, light), 0.0) * albedo + specular * highlight;
}

vec3 ggx(vec3 n, vec3 v, vec3 albedo) {
  vec3 h = unit(light + v);
  float nl = max(dot(n, light), 0.0), nh = max(dot(n, h), 0.0), nv = max(dot(n, v), 1e-4);
  float squared = roughness * roughness * roughness * roughness;
  float base = nh * nh * (squared - 1.0) + 1.0;
  float distribution = squared / (base * base);
  float masking = nl * sqrt(nv * nv * (1.0 - squared) + squared)
    + nv * sqrt(nl * nl * (1.0 - squared) + squared);
  vec3 facing = DIELECTRIC * (1.0 - metalness) + metalness * albedo;
  float away = clamp(1.0 - dot(h, v), 0.0, 1.0);
  vec3 fresnel = facing + (1.0 - facing) * (away * away * away * away * away);
  vec3 matte = (1.0 - fresnel) * (1.0 - metalness) * albedo;
  return (matte + distribution * 0.5 / max(masking, 1e-6) * fresnel) * nl;
}

vec3 develop(vec3 linear) {
  return clamp(pow(clamp(linear, FLOOR, 1.0), vec3(1.0 / GAMMA)), FLOOR, 1.0);
}

void main() {
  vec2 place = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y);
  vec4 n = place.x < split * size.x ? normalAt(beforeMap, place) : normalAt(afterMap, place);
  if (n.w == 0.0) {
    colour = vec4(vec3(mod(place.x + place.y, 12.0) < 6.0 ? 0.56 : 0.64), 1.0);
    return;
  }
  vec3 albedo = grey ? vec3(GREY) : pow(texture(photo, place / size).rgb, vec3(GAMMA));
  vec3 v = viewAt(place);
  vec3 reflected = useGgx ? ggx(n.xyz, v, albedo) : blinnPhong(n.xyz, v, albedo);
  colour = vec4(develop(reflected + ambient * albedo), 1.0);
}`;

function compiled(gl, kind, source) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  return shader;
}

class Shading {
  // Throws an error where WebGL 2 is missing.
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
    if (!gl) throw new Error("no WebGL 2");
    this.gl = gl;
    this.canvas = canvas;
  }

  // `maps`: width, height and the values of normalsOf, before and after; `photo`: an image.
  load(maps, photo, camera) {
    const gl = this.gl;
    const program = gl.createProgram();
    gl.attachShader(program, compiled(gl, gl.VERTEX_SHADER, VERTEX_SHADER));
    gl.attachShader(program, compiled(gl, gl.FRAGMENT_SHADER, FRAGMENT_SHADER));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("the shader cannot be compiled");
    gl.useProgram(program);
    gl.bindVertexArray(gl.createVertexArray());
    this.at = (name) => gl.getUniformLocation(program, name);
    this.texture(0, "beforeMap", () => this.normals(maps.before, maps));
    this.texture(1, "afterMap", () => this.normals(maps.after, maps));
    this.texture(2, "photo", () => this.picture(photo));
    gl.uniform1i(this.at("closed"), camera.closed ? 1 : 0);
    gl.uniform1i(this.at("pinhole"), camera.intrinsics ? 1 : 0);
    gl.uniform4fv(this.at("intrinsics"), camera.intrinsics ?? [1, 1, 0.5, 0.5]);
  }

  texture(unit, name, fill) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    fill();
    gl.uniform1i(this.at(name), unit);
  }

  normals(values, { width, height }) {
    const gl = this.gl;
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, width, height, 0, gl.RGBA, gl.FLOAT, values);
  }

  picture(image) {
    const gl = this.gl;
    // The numbers of the file, whatever the profile of the screen.
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.generateMipmap(gl.TEXTURE_2D);
  }

  draw(settings, width, height) {
    const gl = this.gl;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    gl.viewport(0, 0, width, height);
    gl.uniform2f(this.at("size"), width, height);
    gl.uniform1i(this.at("useGgx"), settings.model === "ggx" ? 1 : 0);
    gl.uniform1i(this.at("grey"), settings.albedo === "grey" ? 1 : 0);
    gl.uniform3fv(this.at("light"), settings.light);
    for (const name of ["split", "ambient", "diffuse", "specular", "shininess", "roughness", "metalness"])
      gl.uniform1f(this.at(name), settings[name]);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Returns the picture under some settings, four bytes a pixel, the lowest row first.
  pixels(settings, width, height) {
    const gl = this.gl;
    this.draw(settings, width, height);
    const values = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, values);
    return values;
  }
}
