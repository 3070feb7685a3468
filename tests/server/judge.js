// What a person with a measuring glass would find wrong with the page as it now stands, as sentences.
(() => {
  const wrong = [];
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  function rgba(colour) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = "rgba(0,0,0,0)";
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  function over([r, g, b, a], [r2, g2, b2]) {
    return [r * a + r2 * (1 - a), g * a + g2 * (1 - a), b * a + b2 * (1 - a), 1];
  }

  function background(element) {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] >= 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  }

  function light([r, g, b]) {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  }

  function contrast(one, other) {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }

  const hidden = (element) => !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const forReaders = (element) => element.closest(".skip") || (innerWidth <= 760 && element.closest(".stack thead"));

  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) {
    wrong.push(`scrolls sideways: ${document.documentElement.scrollWidth} > ${document.documentElement.clientWidth}`);
  }
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const words = node.nodeValue.trim();
    const element = node.parentElement;
    if (!words || element.closest("script, style, title") || forReaders(element) || hidden(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    const name = `“${words.slice(0, 40)}” in ${element.tagName.toLowerCase()}.${element.className.baseVal ?? element.className}`;
    texts += 1;
    if (box.width < 1 || box.height < 1) { wrong.push(`takes no room: ${name}`); continue; }
    if (box.left < -0.5 || box.right > innerWidth + 0.5) wrong.push(`leaves the window: ${name} ${box.left} to ${box.right}`);
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) < 10.5) wrong.push(`too small (${style.fontSize}): ${name}`);
    for (let at = element; at && at !== document.body; at = at.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(at);
      if (at instanceof SVGElement && at.tagName !== "svg") continue;
      const frame = at.getBoundingClientRect();
      const cut = (how) => how === "hidden" || how === "clip";
      if (cut(overflowX) && (box.left < frame.left - 1 || box.right > frame.right + 1)) wrong.push(`is cut: ${name}`);
      else if (cut(overflowY) && (box.top < frame.top - 2 || box.bottom > frame.bottom + 2)) wrong.push(`is cut: ${name}`);
    }
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const back = background(element);
    const found = contrast(over(rgba(colour), back), back);
    if (found < 4.5) wrong.push(`contrast ${found.toFixed(2)}: ${name}`);
  }
  if (texts < 5) wrong.push(`only ${texts} texts are visible`);
  for (const drawing of document.querySelectorAll("svg.mm")) {
    if (hidden(drawing)) continue;
    const boxes = [...drawing.querySelectorAll("text")].map((each) => [each, each.getBoundingClientRect()]);
    boxes.forEach(([one, a], index) => boxes.slice(index + 1).forEach(([other, b]) => {
      const apart = a.right <= b.left + 0.5 || b.right <= a.left + 0.5 || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
      if (!apart) wrong.push(`overlap in a drawing: “${one.textContent}” and “${other.textContent}”`);
    }));
  }
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of new Set(ids.filter((id, index) => ids.indexOf(id) !== index))) wrong.push(`id twice: ${id}`);
  return wrong;
})()
