// Searches by an indexed image have an address, which shows the same search to whoever opens it.

// {index, id, top, steps, approximate, crop}; what is not in it is undefined, and steps are [].
export function readAddress(text) {
  const query = new URLSearchParams(text);
  const top = Number(query.get("top"));
  const crop = (query.get("crop") ?? "").split(",").map(Number);
  return {
    index: query.get("index") ?? undefined,
    id: query.get("id") ?? undefined,
    top: Number.isInteger(top) && top >= 1 && top <= 1000 ? top : undefined,
    steps: query.getAll("step"),
    approximate: query.get("approximate") === "true",
    crop: crop.length === 4 && crop.every(Number.isFinite) ? crop : undefined,
  };
}

export function writeAddress({ index, id, top, steps, approximate, crop }) {
  const query = new URLSearchParams({ index, id, top });
  for (const step of steps) query.append("step", step);
  if (approximate) query.set("approximate", "true");
  if (crop) query.set("crop", crop.map((share) => Number(share.toFixed(4))).join(","));
  return `?${query}`;
}

// "alpha-qe:k=5,alpha=3" -> {name, values}
export function readStep(spec) {
  const [name, rest = ""] = spec.split(/:(.*)/s);
  const pairs = rest.split(",").filter(Boolean).map((pair) => pair.split("="));
  return { name, values: Object.fromEntries(pairs) };
}

// Parameters that have their default are left out.
export function writeStep(step, values) {
  const given = step.parameters.filter(({ name, default: usual }) => values[name] !== String(usual));
  const text = given.map(({ name }) => `${name}=${values[name]}`).join(",");
  return text ? `${step.name}:${text}` : step.name;
}
