import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "node_modules", "**/*.js"] },
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/consistent-type-imports": "error",
      // What turns text into markup or code has one place, the frame, whose origin is nobody's.
      "no-eval": "error",
      "no-new-func": "error",
      "no-restricted-properties": ["error", ...["innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML"].map((property) => ({ property, message: "the page never turns text into markup" }))],
    },
  },
  { files: ["src/frame/*.ts"], rules: { "no-eval": "off", "@typescript-eslint/no-unsafe-call": "off", "no-new-func": "off", "no-restricted-properties": "off", "@typescript-eslint/no-implied-eval": "off" } },
  // Escape sequences of terminals are control characters.
  { rules: { "no-control-regex": "off" } },
);
