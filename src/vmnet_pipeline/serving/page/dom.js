// Small helpers for elements.

export const $ = (id) => document.getElementById(id);

export function make(tag, className = "", text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function makeButton(className, text, onClick) {
  const button = make("button", className, text);
  button.type = "button";
  button.addEventListener("click", onClick);
  return button;
}

export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

// Runs the last of several calls, once there has been none for a while.
export function settle(action, wait = 250) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}
