// Rectangles in pixels of a photo: {x, y, width, height}. What leaves it is brought back by `fitted`.

const LEAST = 8;

const clamp = (value, least, most) => Math.min(Math.max(value, least), Math.max(least, most));

// Whole pixels inside the photo.
export function fitted(box, size) {
  const width = clamp(Math.round(box.width), Math.min(LEAST, size.width), size.width);
  const height = clamp(Math.round(box.height), Math.min(LEAST, size.height), size.height);
  return {
    x: clamp(Math.round(box.x), 0, size.width - width),
    y: clamp(Math.round(box.y), 0, size.height - height),
    width,
    height,
  };
}

export const whole = (size) => ({ x: 0, y: 0, width: size.width, height: size.height });

export function isWhole(box, size) {
  return box.width >= size.width && box.height >= size.height;
}

export function between(one, other, size) {
  const left = clamp(Math.min(one.x, other.x), 0, size.width);
  const top = clamp(Math.min(one.y, other.y), 0, size.height);
  return {
    x: left,
    y: top,
    width: clamp(Math.max(one.x, other.x), 0, size.width) - left,
    height: clamp(Math.max(one.y, other.y), 0, size.height) - top,
  };
}

export const moved = (box, dx, dy) => ({ ...box, x: box.x + dx, y: box.y + dy });

// handle: any of n, s, e, w, or two of them; the opposite side stays.
export function stretched(box, handle, dx, dy, size) {
  const sides = { left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height };
  if (handle.includes("w")) sides.left = clamp(sides.left + dx, 0, sides.right - LEAST);
  if (handle.includes("e")) sides.right = clamp(sides.right + dx, sides.left + LEAST, size.width);
  if (handle.includes("n")) sides.top = clamp(sides.top + dy, 0, sides.bottom - LEAST);
  if (handle.includes("s")) sides.bottom = clamp(sides.bottom + dy, sides.top + LEAST, size.height);
  return { x: sides.left, y: sides.top, width: sides.right - sides.left, height: sides.bottom - sides.top };
}

// About its middle.
export function scaled(box, factor) {
  const [width, height] = [box.width * factor, box.height * factor];
  return { x: box.x + (box.width - width) / 2, y: box.y + (box.height - height) / 2, width, height };
}

export const inside = (box, point) =>
  point.x >= box.x && point.x <= box.x + box.width && point.y >= box.y && point.y <= box.y + box.height;

export const sides = ({ x, y, width, height }) => [x, y, width, height];

// Shares of the photo's sides, and back.
export const shares = (box, { width, height }) => sides(box).map((side, at) => side / (at % 2 ? height : width));

export const ofShares = ([x, y, width, height], size) => ({
  x: x * size.width,
  y: y * size.height,
  width: width * size.width,
  height: height * size.height,
});

export const written = (box) => `${box.x}, ${box.y}, ${box.width} × ${box.height} px`;
