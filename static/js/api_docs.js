// Shows the API's description. Nothing is called from here: scripts use tokens, people use the pages.
const place = document.getElementById("api-docs");
window.SwaggerUIBundle({ url: place.dataset.schema, domNode: place, supportedSubmitMethods: [], validatorUrl: null });
