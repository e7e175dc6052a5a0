// A React application for test_react.py: it shows documents and counts what it does.

import { Component, Profiler, StrictMode } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server.browser";
import { ProgressClient } from "docprogress";
import { ProgressProvider, useDocument } from "docprogress/react";

const counts = { commits: 0, renders: {} };

function Row({ id }) {
  const shown = useDocument(id);
  counts.renders[id] = (counts.renders[id] ?? 0) + 1;
  const { error, ...rest } = shown;
  return <li data-id={id}>{JSON.stringify({ ...rest, error: error && `${error.name} ${error.code}: ${error.message}` })}</li>;
}

class Caught extends Component {
  state = { error: null };
  static getDerivedStateFromError = (error) => ({ error });
  render = () => (this.state.error ? <p id="caught">{this.state.error.message}</p> : this.props.children);
}

const App = ({ ids, provided, isStrict }) => {
  const Mode = isStrict ? StrictMode : "main";
  const rows = ids.map((id, index) => <Row key={index} id={id} />);
  return (
    <Mode>
      <Caught>
        <Profiler id="app" onRender={() => counts.commits++}>
          {provided === null ? rows : <ProgressProvider {...provided}>{rows}</ProgressProvider>}
        </Profiler>
      </Caught>
    </Mode>
  );
};

let root = null;
document.body.innerHTML = '<div id="root"></div>';

Object.assign(window, {
  counts,
  ProgressClient,
  show(ids, provided, isStrict = true) {
    root ??= createRoot(document.getElementById("root"));
    root.render(<App ids={ids} provided={provided} isStrict={isStrict} />);
  },
  unmount() {
    root.unmount();
    root = null;
  },
  renderOnServer: (ids, provided) => renderToString(<App ids={ids} provided={provided} isStrict />),
  hydrate(html, ids, provided) {
    document.getElementById("root").innerHTML = html;
    root = hydrateRoot(document.getElementById("root"), <App ids={ids} provided={provided} isStrict />);
  },
});
