// The types that are written by hand are those of the modules: compiled, never run.

import * as modules from "./modules/index.js";
import * as modulesForReact from "./modules/react.js";
import * as declared from "docprogress";
import * as declaredForReact from "docprogress/react";

export const theModulesAreAsDeclared: typeof declared = modules;
export const thoseForReactToo: typeof declaredForReact = modulesForReact;
