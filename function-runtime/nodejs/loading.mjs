/**
 * Importing the handler, and saying what went wrong in words that fit into a Function's condition.
 *
 * Invariant: `loadHandler` gives a handler or throws a RuntimeError. The file is found as Lambda finds it: folder/app.handler
 * is `handler` of app.js, .mjs, .cjs, .ts, .mts or .cts in `folder`; nested names (app.api.handler) lead into objects.
 */

import { existsSync, statSync } from 'node:fs';
import { createRequire, registerHooks } from 'node:module';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, RuntimeError } from './errors.mjs';

const EXTENSIONS = ['', '.js', '.mjs', '.cjs', '.ts', '.mts', '.cts'];
const MISSING = new Set(['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND']);
const MAX_NAMES = 20;
const CHECK_MILLISECONDS = 5000;

/**
 * @param {string} handler as in Function.spec.handler
 * @param {string} codeDir
 * @returns {Promise<unknown>} what the name stands for: a function, or an object with a function `fetch`
 * @throws {RuntimeError}
 */
export async function loadHandler(handler, codeDir) {
  const name = basename(handler);
  const dot = name.indexOf('.');
  if (handler.includes('..') || dot < 1 || dot === name.length - 1) {
    const message = `Handler '${handler}' must be written as module.function, for example app.handler`;
    throw new RuntimeError('Runtime.MalformedHandlerName', message);
  }
  const module = handler.slice(0, handler.length - name.length + dot);
  const path = name.slice(dot + 1);
  const loaded = await importModule(module, codeDir);
  const found = path.split('.').reduce((value, key) => value?.[key], loaded);
  if (typeof found === 'function' || typeof found?.fetch === 'function') return found;
  const names = Object.keys(loaded ?? {}).filter((key) => typeof loaded[key] === 'function').slice(0, MAX_NAMES);
  const problem = found === undefined ? 'undefined or not exported' : 'not a function';
  const exported = names.join(', ') || 'no function';
  const message = `Handler '${path}' of module '${module}' is ${problem}; it exports: ${exported}`;
  throw new RuntimeError('Runtime.HandlerNotFound', message);
}

async function importModule(module, codeDir) {
  const place = resolve(codeDir, module);
  const file = EXTENSIONS.map((extension) => place + extension).find(isFile);
  if (!file) {
    const tried = EXTENSIONS.slice(1).map((extension) => basename(place) + extension).join(', ');
    const message = `Unable to import module '${module}': none of ${tried} is in ${resolve(place, '..')}`;
    throw new RuntimeError('Runtime.ImportModuleError', message);
  }
  try {
    return await importFile(file);
  } catch (error) {
    throw importError(module, error, file);
  }
}

function isFile(path) {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Import a file the way its kind asks for; `require` takes ES modules too, unless they await at their top level. */
async function importFile(file) {
  if (!/\.m[jt]s$/.test(file)) {
    try {
      return createRequire(file)(file);
    } catch (error) {
      if (error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    }
  }
  return import(pathToFileURL(file).href);
}

/**
 * Say why a module can't be imported.
 * @param {string} module
 * @param {unknown} error
 * @param {string} [file] where its code lies
 */
export function importError(module, error, file) {
  const { errorType, errorMessage, stackTrace } = describe(error);
  const place = error instanceof SyntaxError && stackTrace.length === 0 && (placeOf(error.stack) ?? findPlace(file));
  if (place) {
    const where = `${place[1]}, line ${place[2]}`;
    const message = `Syntax error in module '${module}': ${errorMessage} (${where})`;
    return new RuntimeError('Runtime.UserCodeSyntaxError', message, [`  ${where}\n    ${place[3].trim()}\n`]);
  }
  const message = `Unable to import module '${module}': ${errorType}: ${errorMessage}`;
  return new RuntimeError('Runtime.ImportModuleError', message, stackTrace);
}

/** File, line number and text of the line, where a syntax error's stack begins with them. */
function placeOf(stack) {
  return /^(?:file:\/\/)?(\/[^\n]*):(\d+)\n([^\n]*)/.exec(stack);
}

/** The same for ES modules, which Node tells only on the standard error of a process that dies of it; nothing runs there. */
function findPlace(file) {
  const code = `import ${JSON.stringify(pathToFileURL(file).href)}`;
  const options = { encoding: 'utf8', timeout: CHECK_MILLISECONDS, stdio: ['ignore', 'ignore', 'pipe'] };
  const { spawnSync } = process.getBuiltinModule('node:child_process'); // 3 ms that a start that succeeds doesn't pay
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], options);
  return placeOf(stderr) ?? [file, file, '?', ''];
}

/**
 * Let ES modules find what NODE_PATH names, as CommonJS does by itself: layers under /opt/nodejs lie there.
 * @param {string | undefined} nodePath
 */
export function extendImports(nodePath) {
  const folders = (nodePath ?? '').split(':').filter((folder) => folder.endsWith('/node_modules') && existsSync(folder));
  if (folders.length === 0) return;
  const parents = folders.map((folder) => pathToFileURL(resolve(folder, '..', '_')).href);
  registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context);
      } catch (error) {
        if (!MISSING.has(error?.code) || /^(?:[./]|[a-z]+:)/.test(specifier)) throw error;
        for (const parentURL of parents) {
          try {
            return next(specifier, { ...context, parentURL });
          } catch {
            // not there; the error that counts is the first
          }
        }
        throw error;
      }
    },
  });
}
