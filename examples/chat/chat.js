/** Shows what is said about a document from now on, and gives the function that says something. */
export function chat(client, docId, show) {
  const watch = client.watch(docId);
  watch.done.catch(() => {}); // the document's own end is not the chat's
  client.on("chat", ({ docId: about, text }) => about === docId && show(text));
  return (text) => client.send("say", { docId, text });
}
