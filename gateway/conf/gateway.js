// The websocket's cookie: signed here, checked here, kept from the backend.
//
// Browsers of the Safari family send no basic credentials on a websocket's handshake. Every page or asset that
// passed the password therefore sets a cookie that opens /_stcore/stream, and nothing else, for LIFETIME_S. Streamlit
// asks /_stcore/health before it reconnects, with the password, so a page that was open for hours gets a fresh one.
import crypto from 'crypto';

const NAME = 'vitrine_stream';
const LIFETIME_S = 600;

function signature(expires) {
    return crypto.createHmac('sha256', process.env.GATEWAY_COOKIE_SECRET)
        .update('vitrine websocket until ' + expires).digest('base64url');
}

function equal(a, b) {                  // in constant time for equal lengths
    if (a.length !== b.length) {
        return false;
    }
    let difference = 0;
    for (let i = 0; i < a.length; i++) {
        difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
    }
    return difference === 0;
}

function now() {
    return Math.floor(Date.now() / 1000);
}

function valid(token) {
    const match = /^(\d{1,12})\.([\w-]{43})$/.exec(token);
    if (!match || !equal(signature(match[1]), match[2])) {
        return false;
    }
    const left = Number(match[1]) - now();
    return left > 0 && left <= LIFETIME_S;
}

function cookies(r) {
    return (r.headersIn['Cookie'] || '').split(/;\s*/).filter(c => c.length > 0);
}

function ours(cookie) {
    return cookie.split('=')[0].trim() === NAME;
}

// "off" switches auth_basic off for this request; any other value is the realm.
function streamRealm(r) {
    const good = cookies(r).filter(ours).some(c => valid(c.slice(c.indexOf('=') + 1).trim()));
    return good ? 'off' : r.variables.realm;
}

function streamCookie(r) {
    const expires = now() + LIFETIME_S;
    const secure = r.variables.https === 'on' ? '; Secure' : '';
    return `${NAME}=${expires}.${signature(String(expires))}; Path=/_stcore/stream; Max-Age=${LIFETIME_S}`
        + `; HttpOnly; SameSite=Strict${secure}`;
}

function cookiesButOurs(r) {
    return cookies(r).filter(c => !ours(c)).join('; ');
}

// "1" when a browser says that another site's page opens this websocket.
function foreignOrigin(r) {
    const origin = r.headersIn['Origin'];
    if (origin === undefined) {
        return '';
    }
    const host = (r.headersIn['Host'] || '').toLowerCase();
    return origin.toLowerCase().replace(/^https?:\/\//, '') === host ? '' : '1';
}

export default {streamRealm, streamCookie, cookiesButOurs, foreignOrigin};
