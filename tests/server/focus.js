// Of the element that has the keyboard: its name, and whether a ring around it can be seen.
(() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const inside = box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
  return { name: `${element.tagName} ${element.textContent.trim().slice(0, 30)}`, seen: ring && inside };
})()
