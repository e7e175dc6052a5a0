// What the client's README shows for Vue and Svelte, put to use for test_frameworks.py.

import { createApp, h, ref } from "vue";
import { ProgressClient } from "docprogress";
import { documentStore } from "./svelte.js";
import { useDocument } from "./vue.js";

document.body.innerHTML = '<p id="svelte"></p><div id="vue"></div>';

window.start = (url) => {
  const client = new ProgressClient(url);
  const id = ref("a");
  const app = createApp({
    setup() {
      const update = useDocument(client, id);
      return () => h("p", `${update.value?.docId} ${update.value?.status}`);
    },
  });
  app.mount("#vue");
  const stop = documentStore(client, "b").subscribe((update) => {
    document.getElementById("svelte").textContent = `${update?.docId} ${update?.status}`;
  });
  Object.assign(window, { id, app, stop });
};
