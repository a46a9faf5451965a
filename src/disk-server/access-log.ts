/** Access lines in the NCSA common format, as the log readers of old expect them. */

export interface Access {
  readonly remoteAddress: string;
  readonly method: string;
  readonly target: string;
  readonly version: string;
  readonly status: number;
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `172.16.211.126 - - [20/Jan/2022 11:21:58] "HEAD / HTTP/1.1" 200 -`, in local time. ASCII without control characters. */
export function formatAccess({ remoteAddress, method, target, version, status }: Access, at: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${two(at.getDate())}/${months[at.getMonth()]}/${at.getFullYear()}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const request = escaped(`${method} ${target} HTTP/${version}`);
  return `${remoteAddress} - - [${day} ${time}] "${request}" ${status} -`;
}

function escaped(text: string): string {
  return text.replace(/[^ -~]|["\\]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
