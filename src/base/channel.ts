/**
 * Event channels: what happened, published to whoever listens. Promise: publishing never throws, never waits, and
 * costs one comparison when nobody listens. For state changes only; what is counted per request is a plain integer.
 */

export class Channel<Event> {
  readonly #listeners: ((event: Event) => void)[] = [];

  subscribe(listener: (event: Event) => void): void {
    this.#listeners.push(listener);
  }

  /** Whether anybody listens: whoever would have to compute an event for it asks first. */
  get isHeard(): boolean {
    return this.#listeners.length > 0;
  }

  publish(event: Event): void {
    for (const listener of this.#listeners) listener(event);
  }
}
