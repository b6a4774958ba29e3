"use strict";

// The one image that ReDoc makes by itself is a logo from another host, and it has no option against it.
// This page asks no other host for anything: it gets an element that loads nothing.
const createElement = document.createElement.bind(document);
document.createElement = (name, options) => createElement(name === "img" ? "span" : name, options);

const fontFamily = "system-ui, sans-serif";
Redoc.init(
  "openapi.json",
  { theme: { typography: { fontFamily, headings: { fontFamily } } } },
  document.getElementById("page"),
);
