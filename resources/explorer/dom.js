"use strict";
// Elements and numbers, as every view of the page writes them.
window.dom = (() => {
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }
  const number = (n) => n.toLocaleString("en");
  const unseen = (text) => make("span", { class: "unseen" }, text);
  return { make, number, unseen };
})();
