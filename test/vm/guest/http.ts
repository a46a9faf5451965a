/** One HTTP request, as any client makes it. */
import { request } from 'node:http';

export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Rejects when the connection ends without an answer. */
function ask(url: string, method: string, headers: Record<string, string>, body = Buffer.alloc(0)): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('latin1');
      response.on('data', (part: string) => void (text += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

export function probe(url: string): Promise<Answer> {
  return ask(url, 'HEAD', {});
}

export function read(url: string, offset: number): Promise<Answer> {
  return ask(url, 'GET', { range: `bytes=${offset}-${offset + 511}` });
}

export function write(url: string, offset: number, content: string): Promise<Answer> {
  const bytes = Buffer.alloc(512, content);
  return ask(url, 'PUT', { 'content-range': `bytes ${offset}-${offset + 511}/*` }, bytes);
}
