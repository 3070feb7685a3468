// npm `emulate` (not ours) as a GitHub for the bot, on Node 20 through its API: its command line needs Node 22.
//
//   node emulator.mjs SEED.json PORT        prints `ready` on stdout once it serves
//
// What is ours in it, and therefore no evidence of anything:
// - REST stands below /api/v3 as on GitHub Enterprise Server; the prefix is taken off before the emulator sees it.
// - POST /api/graphql: createCommitOnBranch and markPullRequestReadyForReview, which the emulator lacks. The commit is
//   made by the emulator's own REST git data (blob, tree, commit, ref), so what is read back is its own work.
// - `expires_at` of an installation token loses its milliseconds, which GitHub does not send and githubkit cannot read.
// - X-GitHub-Delivery becomes a random UUID: the emulator's is the clock in milliseconds and repeats.
// - `line` of a review comment becomes the `position` that the emulator wants (the file is new, so they are equal), and
//   reactions and the list of deliveries, which it lacks, are answered with 201 and an empty list.
import { createServer, request } from 'node:http';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createEmulator } from 'emulate';

const [seedFile, portText] = process.argv.slice(2);
const port = Number(portText);
const inner = port + 1;
const realFetch = globalThis.fetch;
globalThis.fetch = (url, options = {}) => {
  if (options.headers?.['X-GitHub-Event']) options.headers['X-GitHub-Delivery'] = randomUUID();
  return realFetch(url, options);
};
await createEmulator({
  service: 'github', port: inner, hostname: '127.0.0.1', baseUrl: `http://127.0.0.1:${port}/api/v3`,
  seed: JSON.parse(readFileSync(seedFile, 'utf8')),
});

function emulator(method, path, headers, body) {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port: inner, method, path, headers }, (incoming) => {
      const parts = [];
      incoming.on('data', (part) => parts.push(part));
      incoming.on('end', () => resolve({ status: incoming.statusCode, headers: incoming.headers, body: Buffer.concat(parts) }));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

async function rest(method, path, authorization, value) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const headers = { authorization, 'content-type': 'application/json', 'user-agent': 'postdoc' };
  const answer = await emulator(method, path, body ? { ...headers, 'content-length': Buffer.byteLength(body) } : headers, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
  return JSON.parse(answer.body);
}

async function graphql(sent, authorization) {
  const { input, id } = sent.variables;
  if (id !== undefined) return { markPullRequestReadyForReview: { pullRequest: { isDraft: false } } };
  const root = `/repos/${input.branch.repositoryNameWithOwner}/git`;
  const head = (await rest('GET', `${root}/ref/heads/${input.branch.branchName}`, authorization)).object.sha;
  if (head !== input.expectedHeadOid) throw new Error(`Expected branch to point to "${input.expectedHeadOid}"`);
  const parent = await rest('GET', `${root}/commits/${head}`, authorization);
  const tree = [];
  for (const { path, contents } of input.fileChanges.additions ?? []) {
    const blob = await rest('POST', `${root}/blobs`, authorization, { content: contents, encoding: 'base64' });
    tree.push({ path, mode: '100644', type: 'blob', sha: blob.sha });
  }
  const made = await rest('POST', `${root}/trees`, authorization, { base_tree: parent.tree.sha, tree });
  const { headline, body } = input.message;
  const message = body ? `${headline}\n\n${body}` : headline;
  const commit = await rest('POST', `${root}/commits`, authorization, { message, tree: made.sha, parents: [head] });
  await rest('PATCH', `${root}/refs/heads/${input.branch.branchName}`, authorization, { sha: commit.sha });
  return { createCommitOnBranch: { commit: { oid: commit.sha } } };
}

createServer(async (incoming, outgoing) => {
  const parts = [];
  for await (const part of incoming) parts.push(part);
  let body = Buffer.concat(parts);
  const answer = (status, value) => {
    outgoing.writeHead(status, { 'content-type': 'application/json' });
    outgoing.end(JSON.stringify(value));
  };
  try {
    if (incoming.url === '/api/graphql') {
      try {
        answer(200, { data: await graphql(JSON.parse(body), incoming.headers.authorization) });
      } catch (error) {
        answer(200, { data: null, errors: [{ type: 'STALE_DATA', message: String(error.message) }] });
      }
      return;
    }
    const path = incoming.url.replace(/^\/api\/v3/, '');
    if (/\/reactions$/.test(path)) return answer(201, { id: 1, content: JSON.parse(body).content });
    if (path.startsWith('/app/hook/deliveries')) return answer(200, []);
    if (/\/pulls\/\d+\/reviews$/.test(path) && incoming.method === 'POST') {
      const sent = JSON.parse(body);
      sent.comments = (sent.comments ?? []).map(({ line, side, ...rest }) => ({ ...rest, position: line }));
      body = Buffer.from(JSON.stringify(sent));
    }
    const headers = { ...incoming.headers, host: `127.0.0.1:${inner}` };
    delete headers['transfer-encoding'];
    if (body.length) headers['content-length'] = body.length;
    const found = await emulator(incoming.method, path, headers, body);
    let content = found.body;
    if (/\/access_tokens$/.test(path)) {
      content = Buffer.from(content.toString().replace(/("expires_at":"[^"]*?)\.\d+Z/, '$1Z'));
    }
    const kept = { ...found.headers };
    delete kept['content-length'];
    delete kept['transfer-encoding'];
    delete kept['content-encoding'];
    outgoing.writeHead(found.status, kept);
    outgoing.end(content);
  } catch (error) {
    answer(502, { message: String(error.message) });
  }
}).listen(port, '127.0.0.1', () => process.stdout.write('ready\n'));
