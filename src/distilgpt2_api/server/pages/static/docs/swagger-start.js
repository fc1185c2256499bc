"use strict";
loadDocument((spec, key) => {
  const ui = SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    onComplete: () => {
      if (key) ui.preauthorizeApiKey("key", key);
    },
  });
});
