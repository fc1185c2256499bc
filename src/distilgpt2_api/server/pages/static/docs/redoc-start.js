"use strict";
loadDocument((spec) => Redoc.init(spec, {}, document.getElementById("redoc")));
