// Compiles Token.sol and prints its bytecode and the selectors of its functions.
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const content = fs.readFileSync(path.join(__dirname, "Token.sol"), "utf8");
const output = { "*": { "*": ["evm.bytecode.object", "evm.methodIdentifiers"] } };
const settings = { evmVersion: "paris", outputSelection: output };
const input = { language: "Solidity", sources: { "Token.sol": { content } }, settings };
const { contracts, errors } = JSON.parse(solc.compile(JSON.stringify(input)));
if (errors) {
  console.error(errors.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
const { bytecode, methodIdentifiers } = contracts["Token.sol"].Token.evm;
console.log(JSON.stringify({ bytecode: bytecode.object, functions: methodIdentifiers }));
