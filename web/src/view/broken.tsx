// What is drawn where the page itself has failed: what is wrong, and what to do, instead of nothing.

import { Component, type ComponentChildren, type JSX } from "preact";

interface State {
  error: unknown;
}

export class Boundary extends Component<{ children: ComponentChildren }, State> {
  override state: State = { error: null };

  static override getDerivedStateFromError(error: unknown): State {
    return { error };
  }

  override componentDidCatch(error: unknown): void {
    console.error(error);
  }

  override render(): ComponentChildren {
    return this.state.error === null ? this.props.children : <Broken error={this.state.error} />;
  }
}

export function Broken({ error }: { error: unknown }): JSX.Element {
  return (
    <section class="broken" role="alert">
      <h1>This page has failed</h1>
      <p>What runs in the session goes on, and what was written is kept. Load the page again; if it fails again, this is what to report:</p>
      <pre class="text">{error instanceof Error ? (error.stack ?? error.message) : String(error)}</pre>
      <button type="button" class="button strong" onClick={() => location.reload()}>Load again</button>
    </section>
  );
}
